//! What launchers of several processes tell each process: its rank, how many share its node, and its job.
//!
//! The first launcher with a complete pair of variables is used, innermost first: torchrun or mpirun within a Slurm step set their own
//! variables, while Slurm's are inherited. Slurm's are used only within a step, because a batch script always has SLURM_PROCID=0.

use super::values::MOST_RANKS;
use crate::plan::rank::Rank;

/// Looks up an environment variable.
type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Variables of rank and size: torchrun, Open MPI, MPICH and Intel MPI, MVAPICH, IBM's jsrun, Flux. Slurm comes last.
const RANKS: [(&str, &str); 6] = [
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE"),
    ("FLUX_TASK_RANK", "FLUX_JOB_SIZE"),
];
const SLURM: (&str, &str) = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS");

/// Variables of ranks without one of the size: PALS, plain PMIx, an indexed Kubernetes job.
const WITHOUT_SIZE: [&str; 3] = ["PALS_RANKID", "PMIX_RANK", "JOB_COMPLETION_INDEX"];

/// Variables of the number of processes on this node; Slurm's list comes last.
const LOCAL_SIZES: [&str; 3] = ["LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"];

/// Variables that identify a job. All that are set are used, as a step belongs to its job.
const JOBS: [&str; 8] = [
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
    "TORCHELASTIC_RUN_ID",
    "MASTER_PORT",
    "PMIX_NAMESPACE",
    "FLUX_JOB_ID",
    "PBS_JOBID",
    "LSB_JOBID",
];

/// Step numbers from here on are not steps with tasks (batch script, external, interactive).
const FIRST_SPECIAL_STEP: u64 = 0xffff_fff0;

/// The rank for `--rank auto`.
///
/// # Errors
/// The variables that were looked for, and what to give instead.
pub fn rank(variable: Variable<'_>) -> Result<Rank, String> {
    let step = is_step(variable).then_some(SLURM);
    for (index, of) in RANKS.into_iter().chain(step) {
        let (Some(index_text), Some(of_text)) = (variable(index), variable(of)) else { continue };
        let rank = index_text.trim().parse().ok().zip(of_text.trim().parse().ok());
        return match rank {
            Some((index, of)) if index < of && of <= MOST_RANKS => Ok(Rank { index, of }),
            _ => Err(format!(
                "--rank auto: {index}={index_text} and {of}={of_text} name no rank of a world of at most {MOST_RANKS}"
            )),
        };
    }
    if let Some(name) = WITHOUT_SIZE.into_iter().find(|name| variable(name).is_some()) {
        return Err(format!(
            "--rank auto: {name} is set, but its launcher has no variable for the number of ranks; give both, as in \
             --rank ${name}/4"
        ));
    }
    if variable("SLURM_JOB_ID").is_some() && !is_step(variable) {
        return Err(
            "--rank auto: this is the script of a Slurm job and not a task of a step, so it is no rank; start \
                    shufflefs with srun, or give the rank, as in --rank 0/4"
                .into(),
        );
    }
    let names: Vec<String> = RANKS.into_iter().chain([SLURM]).map(|(index, of)| format!("{index} and {of}")).collect();
    Err(format!("--rank auto: neither {} is set; give the rank, as in --rank 0/4", names.join(" nor ")))
}

/// The number of processes of this job on this node, including this one; 1 without a launcher.
pub fn local_size(variable: Variable<'_>) -> u64 {
    let number = |name: &str| variable(name)?.trim().parse::<u64>().ok().filter(|&size| size > 0);
    LOCAL_SIZES.into_iter().find_map(number).or_else(|| slurm_local_size(variable)).unwrap_or(1)
}

/// A text that identifies the job among those of the user; `None` without a launcher.
pub fn job(variable: Variable<'_>) -> Option<String> {
    let set: Vec<String> = JOBS.into_iter().filter_map(|name| Some(format!("{name}={}", variable(name)?))).collect();
    (!set.is_empty()).then(|| set.join(" "))
}

/// Whether this process is a task started by srun.
fn is_step(variable: Variable<'_>) -> bool {
    let step = variable("SLURM_STEP_ID").and_then(|text| text.trim().parse::<u64>().ok());
    step.is_some_and(|step| step < FIRST_SPECIAL_STEP)
}

fn slurm_local_size(variable: Variable<'_>) -> Option<u64> {
    if !is_step(variable) {
        return None;
    }
    let node = variable("SLURM_NODEID").and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    tasks_of_node(&variable("SLURM_STEP_TASKS_PER_NODE")?, node)
}

/// The number of tasks on a node, from Slurm's list: `4(x2),3` means four on nodes 0 and 1, three on node 2.
fn tasks_of_node(list: &str, node: u64) -> Option<u64> {
    let mut before = 0u64;
    for item in list.split(',') {
        let (tasks, nodes) = match item.trim().split_once("(x") {
            Some((tasks, nodes)) => (tasks, nodes.strip_suffix(')')?.parse::<u64>().ok()?),
            None => (item.trim(), 1),
        };
        before = before.saturating_add(nodes);
        if node < before {
            return tasks.parse().ok().filter(|&tasks| tasks > 0);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    type Set<'a> = &'a [(&'a str, &'a str)];

    fn with<T>(set: Set<'_>, ask: impl Fn(Variable<'_>) -> T) -> T {
        ask(&|name| set.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned()))
    }

    const STEP: [(&str, &str); 6] = [
        ("SLURM_JOB_ID", "71"),
        ("SLURM_STEP_ID", "0"),
        ("SLURM_PROCID", "3"),
        ("SLURM_STEP_NUM_TASKS", "8"),
        ("SLURM_NTASKS", "16"),
        ("SLURM_STEP_TASKS_PER_NODE", "4(x2)"),
    ];

    #[test]
    fn each_launcher_is_understood() {
        for (set, index, of) in [
            (&[("RANK", "5"), ("WORLD_SIZE", "6")][..], 5, 6),
            (&[("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "2"), ("PMIX_RANK", "0")], 0, 2),
            (&[("PMI_RANK", "1"), ("PMI_SIZE", "2")], 1, 2),
            (&[("MV2_COMM_WORLD_RANK", "1"), ("MV2_COMM_WORLD_SIZE", "3")], 1, 3),
            (&[("JSM_NAMESPACE_RANK", "2"), ("JSM_NAMESPACE_SIZE", "3")], 2, 3),
            (&[("FLUX_TASK_RANK", "0"), ("FLUX_JOB_SIZE", "1")], 0, 1),
            (&STEP, 3, 8),
            // Slurm with PMIx: the size comes from the step.
            (&[&STEP[..], &[("PMIX_RANK", "3")]].concat(), 3, 8),
        ] {
            assert_eq!(with(set, |variable| rank(variable)), Ok(Rank { index, of }), "{set:?}");
        }
    }

    /// Inner launchers inherit the variables of outer ones.
    #[test]
    fn the_innermost_launcher_wins() {
        let order: [Set<'_>; 4] = [
            &[("RANK", "1"), ("WORLD_SIZE", "101")],
            &[("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "102")],
            &[("PMI_RANK", "1"), ("PMI_SIZE", "103")],
            &STEP,
        ];
        for (first, of) in [(0, 101), (1, 102), (2, 103), (3, 8)] {
            let set = order[first..].concat();
            assert_eq!(with(&set, |variable| rank(variable)).map(|rank| rank.of), Ok(of));
        }
        // An incomplete pair is ignored: RANK alone is often set by hand.
        let set = [&[("RANK", "7")][..], &STEP].concat();
        assert_eq!(with(&set, |variable| rank(variable)), Ok(Rank { index: 3, of: 8 }));
    }

    #[test]
    fn refusals_say_what_to_do() {
        let batch = [("SLURM_JOB_ID", "71"), ("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")];
        let special = [&batch[..], &[("SLURM_STEP_ID", "4294967291"), ("SLURM_STEP_NUM_TASKS", "1")]].concat();
        for (set, words) in [
            (&batch[..], ["srun", "--rank 0/4"]),
            (&special, ["srun", "script"]),
            (&[("PALS_RANKID", "1")], ["PALS_RANKID", "--rank $PALS_RANKID/4"]),
            (&[("PMIX_RANK", "1")], ["PMIX_RANK", "number of ranks"]),
            (&[("JOB_COMPLETION_INDEX", "1")], ["JOB_COMPLETION_INDEX", "number of ranks"]),
            (&[("RANK", "2"), ("WORLD_SIZE", "2")], ["WORLD_SIZE=2", "no rank"]),
            (&[("RANK", "2")], ["PMI_RANK and PMI_SIZE", "SLURM_STEP_NUM_TASKS"]),
            (&[], ["neither RANK and WORLD_SIZE", "--rank 0/4"]),
        ] {
            let error = with(set, |variable| rank(variable)).expect_err("a rank");
            assert!(words.iter().all(|word| error.contains(word)) && !error.contains('\n'), "{set:?}: {error}");
        }
    }

    #[test]
    fn processes_of_a_node() {
        for (set, size) in [
            (&[][..], 1),
            (&[("LOCAL_WORLD_SIZE", "8"), ("OMPI_COMM_WORLD_LOCAL_SIZE", "4")], 8),
            (&[("OMPI_COMM_WORLD_LOCAL_SIZE", "4")], 4),
            (&[("MPI_LOCALNRANKS", "3")], 3),
            (&[("LOCAL_WORLD_SIZE", "0")], 1),
            (&STEP, 4),
            // A batch script is a single process.
            (&[("SLURM_JOB_ID", "71"), ("SLURM_STEP_TASKS_PER_NODE", "4")], 1),
        ] {
            assert_eq!(with(set, |variable| local_size(variable)), size, "{set:?}");
        }
        let list = "4(x2),3,1(x3)";
        let found: Vec<Option<u64>> = (0..7).map(|node| tasks_of_node(list, node)).collect();
        assert_eq!(found, [Some(4), Some(4), Some(3), Some(1), Some(1), Some(1), None]);
        assert!(["", "x", "4(x", "0"].iter().all(|list| tasks_of_node(list, 0).is_none()));
    }

    #[test]
    fn a_job_has_a_name_of_its_own() {
        let of = |set: Set<'_>| with(set, |variable| job(variable));
        assert_eq!(of(&[]), None);
        assert_ne!(of(&STEP), of(&[&STEP[..1], &[("SLURM_STEP_ID", "1")]].concat()));
        // Tasks of a job differ only in their ranks.
        assert_eq!(of(&STEP), of(&[&STEP[..2], &[("SLURM_PROCID", "0")]].concat()));
    }
}
