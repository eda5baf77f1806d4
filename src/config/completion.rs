//! `braid completion`: scripts for shells, out of the table of flags. They offer what has an effect.

use super::flags::{FLAGS, Flag, FlagKind, SHELLS, SUBCOMMANDS, Status, Subcommand};

/// The script for a shell of [`SHELLS`].
pub(super) fn script(shell: &str) -> String {
    match shell {
        "bash" => bash(),
        "zsh" => zsh(),
        "fish" => fish(),
        other => unreachable!("reading let {other} pass"),
    }
}

fn offered() -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().filter(|flag| flag.status == Status::Built)
}

/// The values that a flag may have, where they are few.
fn choices(flag: &Flag) -> &'static [&'static str] {
    match flag.kind {
        FlagKind::Choice(choices) => choices,
        FlagKind::Bool => &["true", "false"],
        _ => &[],
    }
}

fn is_directory(flag: &Flag) -> bool {
    flag.name == "data-dir"
}

/// Writes the script for bash. Where a value is due, no flag is offered in its place.
fn bash() -> String {
    let mut cases = String::new();
    for flag in offered() {
        let words = format!("COMPREPLY=($(compgen -W \"{}\" -- \"$word\")); return", choices(flag).join(" "));
        let case = match flag.kind {
            // A boolean takes its value only behind its =.
            FlagKind::Bool => format!("[ -n \"$behind\" ] && {{ {words}; }}"),
            _ if is_directory(flag) => BASH_DIRECTORIES.to_owned(),
            _ if choices(flag).is_empty() => "return".to_owned(),
            _ => words,
        };
        cases.push_str(&format!("    --{0} | -{0}) {case} ;;\n", flag.name));
    }
    let commands: Vec<&str> = SUBCOMMANDS.iter().map(|command| command.name).collect();
    format!(
        r#"# Completion of braid for bash. For this shell: source <(braid completion bash). For all:
# braid completion bash > ~/.local/share/bash-completion/completions/braid
_braid() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} flag=${{COMP_WORDS[COMP_CWORD - 1]}} behind= commands=
  COMPREPLY=()
  # bash makes a word of its own of each =.
  if [ "$word" = = ]; then
    word= behind==
  elif [ "$flag" = = ]; then
    flag=${{COMP_WORDS[COMP_CWORD - 2]}} behind==
  fi
  if [ "$COMP_CWORD" = 1 ]; then
    commands="{commands}"
  else
    case ${{COMP_WORDS[1]}} in
{subcommands}    esac
  fi
  case $flag in
{cases}  esac
  COMPREPLY=($(compgen -W "$commands --help {flags}" -- "$word"))
}}
complete -F _braid braid
"#,
        commands = commands.join(" "),
        subcommands = SUBCOMMANDS.iter().map(|command| bash_subcommand(command)).collect::<String>(),
        flags = dashed(offered()),
    )
}

/// Names with spaces stay whole, and the next word may go on below a directory.
const BASH_DIRECTORIES: &str =
    "mapfile -t COMPREPLY < <(compgen -d -- \"$word\"); compopt -o filenames 2>/dev/null; return";

fn bash_subcommand(command: &Subcommand) -> String {
    let flags = dashed(command.flags.iter());
    let case = match command.operand {
        "" => "return".to_owned(),
        "SHELL" => format!(
            "[ \"$COMP_CWORD\" = 2 ] && COMPREPLY=($(compgen -W \"{}\" -- \"$word\")); return",
            SHELLS.join(" ")
        ),
        _ => BASH_DIRECTORIES.replace("compgen -d", &format!("compgen -d -W \"{flags}\"")),
    };
    format!("      {}) {case} ;;\n", command.name)
}

/// The names, as they are typed.
fn dashed<'a>(flags: impl Iterator<Item = &'a Flag>) -> String {
    flags.map(|flag| format!("--{}", flag.name)).collect::<Vec<String>>().join(" ")
}

fn zsh() -> String {
    let subcommands: String = SUBCOMMANDS.iter().map(|command| zsh_subcommand(command)).collect();
    let commands: Vec<&str> = SUBCOMMANDS.iter().map(|command| command.name).collect();
    let mut flags = format!("    '1::command:({})' \\\n    '--help[Print the help.]'", commands.join(" "));
    for flag in offered() {
        let help = zsh_text(flag.help);
        let value = match (flag.kind, choices(flag)) {
            (FlagKind::Bool, _) => format!("-[{help}]::value:(true false)"),
            (_, []) if is_directory(flag) => format!("[{help}]:directory:_files -/"),
            (_, []) => format!("[{help}]:value:"),
            (_, choices) => format!("[{help}]:value:({})", choices.join(" ")),
        };
        flags.push_str(&format!(" \\\n    '--{}={value}'", flag.name));
    }
    format!(
        r#"#compdef braid
# Completion of braid for zsh. For this shell, behind compinit: source <(braid completion zsh). For all, in a
# directory of $fpath: braid completion zsh > "${{fpath[1]}}/_braid"
_braid() {{
  if (( CURRENT > 2 )); then
    case $words[2] in
{subcommands}    esac
  fi
  _arguments \
{flags}
}}
# Run by compinit from a directory it is to complete at once; sourced it is only to be known.
if [[ $funcstack[1] == _braid ]]; then
  _braid "$@"
else
  compdef _braid braid
fi
"#
    )
}

fn zsh_subcommand(command: &Subcommand) -> String {
    let mut specs = format!("'1:command:({})'", command.name);
    match command.operand {
        "" => {}
        "SHELL" => specs.push_str(&format!(" '2:shell:({})'", SHELLS.join(" "))),
        _ => specs.push_str(" '2:directory:_files -/'"),
    }
    for flag in command.flags {
        specs.push_str(&format!(" '--{}[{}]'", flag.name, zsh_text(flag.help)));
    }
    format!("      {}) _arguments {specs}; return ;;\n", command.name)
}

/// Text between the brackets of a specification in single quotes.
fn zsh_text(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('\'', "'\\''");
    text.replace('[', "\\[").replace(']', "\\]").replace(':', "\\:")
}

fn fish() -> String {
    let mut script = String::from(
        "# Completion of braid for fish. For this shell: braid completion fish | source. For all:\n\
         # braid completion fish > ~/.config/fish/completions/braid.fish\n\
         complete -c braid -f\n",
    );
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    for command in SUBCOMMANDS {
        let (name, help) = (command.name, quoted(command.help));
        script.push_str(&format!("complete -c braid -n __fish_use_subcommand -a {name} -d {help}\n"));
        let within = format!("-n '__fish_seen_subcommand_from {name}'");
        for flag in command.flags {
            script.push_str(&format!(
                "complete -c braid {within} -l {} -d {}\n",
                flag.name,
                quoted(flag.help)
            ));
        }
        match command.operand {
            "" => {}
            "SHELL" => script.push_str(&format!("complete -c braid {within} -a '{}'\n", SHELLS.join(" "))),
            _ => script.push_str(&format!("complete -c braid {within} -a '(__fish_complete_directories)'\n")),
        }
    }
    let names: Vec<&str> = SUBCOMMANDS.iter().map(|command| command.name).collect();
    let serving = format!("-n 'not __fish_seen_subcommand_from {}'", names.join(" "));
    script.push_str(&format!("complete -c braid {serving} -l help -d 'Print the help.'\n"));
    for flag in offered() {
        let value = match (flag.kind, choices(flag)) {
            (FlagKind::Bool, _) => String::new(),
            (_, []) if is_directory(flag) => " -x -a '(__fish_complete_directories)'".to_owned(),
            (_, []) => " -x".to_owned(),
            (_, choices) => format!(" -x -a '{}'", choices.join(" ")),
        };
        script.push_str(&format!(
            "complete -c braid {serving} -l {}{value} -d {}\n",
            flag.name,
            quoted(flag.help)
        ));
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_is_told_every_flag_with_an_effect() {
        for shell in SHELLS {
            let script = script(shell);
            for flag in offered() {
                let named = match *shell {
                    "fish" => format!("-l {} ", flag.name),
                    "zsh" => format!("'--{}=", flag.name),
                    _ => format!(" --{}", flag.name),
                };
                assert!(script.contains(&named), "{shell}: {}", flag.name);
            }
            for command in SUBCOMMANDS {
                assert!(script.contains(command.name), "{shell}: {}", command.name);
            }
        }
    }
}
