//! Help, man pages and completions: what a user reads before the first mount.

use std::fs;

use crate::area::Area;

#[test]
fn help_says_defaults_units_and_exit_codes() {
    let area = Area::new();
    for command in ["mount", "run"] {
        let help = area.run([command, "--help"]);
        assert_eq!(help.code, Some(0));
        // Lines are broken to the width of the terminal.
        let unwrapped = help.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in [
            "Sampling:",
            "Output:",
            "Resources:",
            "Permissions:",
            "Other:",
            "[default: 256]",
            "[default: auto]",
            "[default: npz]",
            "[default: 60s]",
            "batch-size * fetch-factor / block-size",
            "Exit codes:",
            "SHUFFLEFS_LOG",
        ] {
            assert!(unwrapped.contains(word), "{command}: {word}\n{}", help.stdout);
        }
        // Every option but the questions says what holds without it.
        for option in help.stdout.split("\n  -").skip(1).chain(help.stdout.split("\n      --").skip(1)) {
            let name = option.split_whitespace().next().unwrap();
            let text = option.split("\n      --").next().unwrap().split("\n\n\n").next().unwrap();
            let is_question = text.contains("Print help") || text.contains("Print version");
            assert!(is_question || text.contains("[default"), "{command} {name}: no default\n{text}");
        }
    }
    for command in ["umount", "info"] {
        let help = area.run([command, "--help"]);
        assert!(help.code == Some(0) && help.stdout.contains("[default"), "{command}: {}", help.stdout);
    }
    let help = area.run(["--help"]);
    assert!(!help.stdout.contains("completions"), "hidden commands are not listed");
}

#[test]
fn man_pages_and_completions_generate() {
    let area = Area::new();
    assert_eq!(area.run(["man", "pages"]).code, Some(0));
    for page in ["shufflefs", "shufflefs-mount", "shufflefs-umount", "shufflefs-run", "shufflefs-info"] {
        let text = fs::read_to_string(area.path("pages").join(format!("{page}.1"))).unwrap();
        assert!(text.contains("Exit codes"), "{page}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = area.run(["completions", shell]);
        assert!(script.code == Some(0) && script.stdout.contains("batch-size"), "{shell}");
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let area = Area::new();
    let script = format!("{} completions bash | head -1; echo ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_shufflefs"));
    let output = std::process::Command::new("bash").args(["-c", &script]).current_dir(area.path(".")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn no_command_is_a_usage_error() {
    let area = Area::new();
    area.run(Vec::<String>::new()).refused(2, "a command is missing");
    area.run(["mout"]).refused(2, "mount");
}
