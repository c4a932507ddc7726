//! The effect of a launcher's variables on a mount: the rank, and a process's share of memory and cores. Real launchers are in
//! `clusters`.

use crate::area::{Area, Ran};

/// `shufflefs run` with these variables and options, and a command in the shell.
fn run(area: &Area, variables: &[(&str, &str)], options: &[&str], script: &str) -> Ran {
    let mut command = area.command([&["run"][..], options, &["store.h5ad", "--", "sh", "-c", script]].concat());
    for name in ["RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "PMI_RANK", "PMIX_RANK", "SLURM_JOB_ID", "SLURM_STEP_ID"] {
        command.env_remove(name);
    }
    Ran::from(command.envs(variables.iter().copied()).output().unwrap())
}

/// hydra inside a Slurm step: its ranks differ, Slurm's task is the same.
const HYDRA_IN_SLURM: [(&str, &str); 7] = [
    ("PMI_RANK", "1"),
    ("PMI_SIZE", "2"),
    ("MPI_LOCALNRANKS", "2"),
    ("SLURM_JOB_ID", "7"),
    ("SLURM_STEP_ID", "0"),
    ("SLURM_PROCID", "0"),
    ("SLURM_STEP_NUM_TASKS", "1"),
];

#[test]
fn auto_is_the_rank_of_the_innermost_launcher() {
    let area = Area::new();
    let ran = run(&area, &HYDRA_IN_SLURM, &["--rank", "auto"], "grep '\"rank\"' {}/dataset.json");
    assert!(ran.stdout.contains("\"1/2\""), "{ran:?}");
}

#[test]
fn auto_in_the_script_of_a_slurm_job_is_refused() {
    let area = Area::new();
    let batch = [("SLURM_JOB_ID", "7"), ("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")];
    run(&area, &batch, &["--rank", "auto"], "true").refused(125, "start shufflefs with srun");
    run(&area, &[("PMIX_RANK", "0")], &["--rank", "auto"], "true").refused(125, "PMIX_RANK");
    run(&area, &[], &["--rank", "auto"], "true").refused(125, "--rank 0/4");
}

/// Eight ranks that each took a quarter of the memory would need twice the memory.
#[test]
fn memory_and_threads_are_divided_by_the_processes_of_the_node() {
    let area = Area::new();
    let told = |variables: &[(&str, &str)], options: &[&str], name: &str| {
        let ran = run(&area, variables, options, "cat {}/.shufflefs/options.json");
        let told: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
        told[name].as_u64().unwrap()
    };
    let (alone, eight) = ([], [("LOCAL_WORLD_SIZE", "8")]);
    let (whole, share) = (told(&alone, &[], "memory"), told(&eight, &[], "memory"));
    assert!(share <= whole / 8 && share > whole / 9, "{share} of {whole}");
    let cores = told(&alone, &[], "threads");
    assert_eq!(told(&eight, &[], "threads"), (cores / 8).max(1));
    // Given values are not divided.
    assert_eq!(told(&eight, &["--threads", "3"], "threads"), 3);
    assert_eq!(told(&eight, &["--memory", "64MiB"], "memory"), 64 << 20);
}
