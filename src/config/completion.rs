//! `braid completion`: scripts for shells, out of the table of flags. They offer what has an effect.

use super::flags::{COMPLETION, DUMP_LOG, FLAGS, Flag, Kind, SHELLS, SUBCOMMANDS, Status};

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
        Kind::Choice(choices) => choices,
        Kind::Bool => &["true", "false"],
        _ => &[],
    }
}

fn is_directory(flag: &Flag) -> bool {
    flag.name == "data-dir"
}

fn bash() -> String {
    let mut cases = String::new();
    for flag in offered() {
        let names = format!("--{0} | -{0}", flag.name);
        if is_directory(flag) {
            cases.push_str(&format!("  {names}) COMPREPLY=($(compgen -d -- \"$word\")) && return ;;\n"));
        } else if let [_, ..] = choices(flag) {
            let choices = choices(flag).join(" ");
            // A boolean takes its value only behind its =.
            let condition = if flag.kind == Kind::Bool { "[ -n \"$behind\" ] && " } else { "" };
            cases.push_str(&format!(
                "  {names}) {condition}COMPREPLY=($(compgen -W \"{choices}\" -- \"$word\")) && return ;;\n"
            ));
        } else if !matches!(flag.kind, Kind::Bool | Kind::Anything) {
            cases.push_str(&format!("  {names}) COMPREPLY=() && return ;;\n"));
        }
    }
    let flags: Vec<String> = offered().map(|flag| format!("--{}", flag.name)).collect();
    let commands: Vec<&str> = SUBCOMMANDS.iter().map(|command| command.name).collect();
    let dump_flags: Vec<String> = DUMP_LOG.flags.iter().map(|flag| format!("--{}", flag.name)).collect();
    format!(
        "# Completion of braid for bash. For this shell: source <(braid completion bash). For all:\n\
         # braid completion bash > ~/.local/share/bash-completion/completions/braid\n\
         _braid() {{\n  \
         local word=${{COMP_WORDS[COMP_CWORD]}} flag=${{COMP_WORDS[COMP_CWORD - 1]}} behind=\n  \
         # bash makes a word of its own of each =.\n  \
         if [ \"$word\" = = ]; then\n    word= behind==\n  \
         elif [ \"$flag\" = = ]; then\n    flag=${{COMP_WORDS[COMP_CWORD - 2]}} behind==\n  fi\n  \
         case ${{COMP_WORDS[1]}} in\n  \
         {dump}) [ \"$COMP_CWORD\" -gt 1 ] && COMPREPLY=($(compgen -d -W \"{dump_flags}\" -- \"$word\")) && return ;;\n  \
         {completion}) [ \"$COMP_CWORD\" -gt 1 ] && COMPREPLY=($(compgen -W \"{shells}\" -- \"$word\")) && return ;;\n  \
         esac\n  case $flag in\n{cases}  esac\n  \
         local commands=\n  [ \"$COMP_CWORD\" = 1 ] && commands=\"{commands}\"\n  \
         COMPREPLY=($(compgen -W \"$commands --help {flags}\" -- \"$word\"))\n}}\n\
         complete -F _braid braid\n",
        dump = DUMP_LOG.name,
        dump_flags = dump_flags.join(" "),
        completion = COMPLETION.name,
        shells = SHELLS.join(" "),
        commands = commands.join(" "),
        flags = flags.join(" "),
    )
}

fn zsh() -> String {
    let mut script = String::from(
        "#compdef braid\n\
         # Completion of braid for zsh. Put it as _braid into a directory of $fpath:\n\
         # braid completion zsh > \"${fpath[1]}/_braid\"\n\
         _braid() {\n  \
         case $words[2] in\n",
    );
    for command in SUBCOMMANDS {
        let flags: Vec<String> =
            command.flags.iter().map(|flag| format!("'--{}[{}]'", flag.name, flag.help)).collect();
        let operand = match command.operand {
            "" => String::new(),
            "SHELL" => format!("'2:shell:({})'", SHELLS.join(" ")),
            _ => "'2:directory:_files -/'".to_owned(),
        };
        let rest = [flags.join(" "), operand].join(" ");
        script.push_str(&format!(
            "  {}) (( CURRENT > 2 )) && _arguments {} && return ;;\n",
            command.name,
            rest.trim()
        ));
    }
    script.push_str("  esac\n  _arguments \\\n");
    let commands: Vec<&str> = SUBCOMMANDS.iter().map(|command| command.name).collect();
    script.push_str(&format!(
        "    '1::command:({})' \\\n    '--help[Print the help.]' \\\n",
        commands.join(" ")
    ));
    for flag in offered() {
        let help =
            flag.help.replace('\'', "'\\''").replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
        let value = match (flag.kind, choices(flag)) {
            (Kind::Bool, _) => format!("-[{help}]::value:(true false)"),
            (_, []) if is_directory(flag) => format!("[{help}]:directory:_files -/"),
            (_, []) => format!("[{help}]:value:"),
            (_, choices) => format!("[{help}]:value:({})", choices.join(" ")),
        };
        script.push_str(&format!("    '--{}={value}' \\\n", flag.name));
    }
    script.push_str("    && return\n}\n_braid \"$@\"\n");
    script
}

fn fish() -> String {
    let mut script = String::from(
        "# Completion of braid for fish:\n\
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
            (Kind::Bool, _) => String::new(),
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
