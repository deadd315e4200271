"""vspcctl completion: prints a completion script for bash, zsh or fish.

Does: fills in the commands and options from the parser itself, so that they cannot differ from it. Names of
consoles are asked from the daemon while the user types, by the hidden command ``_names``.
Owns: the scripts.
Never: lets a shell evaluate a console's name. A VM may call itself ``$(reboot)``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import NamedTuple

from vspcd.ctl.commandline import COMMANDS, build_parser, subparsers
from vspcd.ctl.failure import OK


class Option(NamedTuple):
    names: tuple[str, ...]
    help: str
    takes_value: bool


def run(arguments: argparse.Namespace) -> int:
    sys.stdout.write(SHELLS[arguments.shell]())
    return OK


def _parsers() -> dict[str, argparse.ArgumentParser]:
    """Each command's parser, and the whole one under an empty name."""
    whole = build_parser(list(COMMANDS))
    below = subparsers(whole)
    return {"": whole, **{name: below[name] for name in COMMANDS}}


def _named(parsers: dict[str, argparse.ArgumentParser]) -> list[str]:
    """The commands that take a console's name."""
    return [
        name
        for name, parser in parsers.items()
        if any(not action.option_strings and action.metavar == "NAME" for action in parser._actions)
    ]


def _options(parser: argparse.ArgumentParser) -> list[Option]:
    return [
        Option(tuple(action.option_strings), _plain(action.help), action.nargs != 0)
        for action in parser._actions
        if action.option_strings
    ]


def _plain(text: object) -> str:
    """A help text without what any of the shells would take for its own."""
    shown = "".join(" " if c in '"[]:\\$`\n' else "\u2019" if c == "'" else c for c in str(text or ""))
    return " ".join(shown.split())


def _words(options: Iterable[Option]) -> str:
    return " ".join(name for option in options for name in option.names)


def _bash() -> str:
    parsers = _parsers()
    cases = "\n".join(f"        {name}) words='{_words(_options(parsers[name]))}' ;;" for name in COMMANDS)
    valued = "|".join(
        sorted({n for p in parsers.values() for o in _options(p) if o.takes_value for n in o.names})
    )
    return BASH.format(
        commands=" ".join(COMMANDS),
        cases=cases,
        top=_words(_options(parsers[""])),
        valued=valued,
        named="|".join(_named(parsers)),
    )


def _zsh() -> str:
    parsers = _parsers()
    commands = "\n".join(f"    '{name}:{_plain(command.help)}'" for name, command in COMMANDS.items())
    named = _named(parsers)
    cases = "\n".join(_zsh_case(name, parsers[name], name in named) for name in COMMANDS)
    return ZSH.format(commands=commands, cases=cases)


def _zsh_case(name: str, parser: argparse.ArgumentParser, named: bool) -> str:
    specs = [
        f"'{option_name}[{option.help}]{':value:_files' if option.takes_value else ''}'"
        for option in _options(parser)
        for option_name in option.names
    ]
    if named:
        specs.append("'*:console:_vspcctl_consoles'")
    if name == "completion":
        specs.append("'*:shell:(bash zsh fish)'")
    return f"        {name}) _arguments " + " ".join(specs) + " ;;"


def _fish() -> str:
    parsers = _parsers()
    lines = [FISH]
    for name, command in COMMANDS.items():
        lines.append(
            f"complete -c vspcctl -n __fish_use_subcommand -f -a {name} -d '{_plain(command.help)}'\n"
        )
    for name, parser in parsers.items():
        condition = f"-n '__fish_seen_subcommand_from {name}' " if name else "-n __fish_use_subcommand "
        lines += [f"complete -c vspcctl {condition}{_fish_option(option)}\n" for option in _options(parser)]
    named = " ".join(_named(parsers))
    lines.append(
        f"complete -c vspcctl -n '__fish_seen_subcommand_from {named}' -f -a '(__vspcctl_names)'\n"
        "complete -c vspcctl -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'\n"
    )
    return "".join(lines)


def _fish_option(option: Option) -> str:
    names = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
    return " ".join(names) + (" -r" if option.takes_value else "") + f" -d '{option.help}'"


BASH = """\
# bash completion of vspcctl:  source <(vspcctl completion bash)
_vspcctl() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
    local command= words= i line quoted
    local -a where=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "${{COMP_WORDS[i]}}" in
        --root|--socket) where+=("${{COMP_WORDS[i]}}" "${{COMP_WORDS[i+1]/#\\~/$HOME}}"); ((i++)) ;;
        -*) ;;
        *) [[ -z $command ]] && command="${{COMP_WORDS[i]}}" ;;
        esac
    done
    COMPREPLY=()
    case "$before" in
    --root|--dir) mapfile -t COMPREPLY < <(compgen -d -- "$current"); return ;;
    --socket|--config) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
    {valued}) return ;;
    esac
    if [[ -z $command ]]; then
        words='{commands} {top}'
    else
        case "$command" in
{cases}
        esac
    fi
    [[ $command == completion ]] && words="$words bash zsh fish"
    if [[ $current == -* || -z $command || $command == completion ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
        return
    fi
    case "$command" in
    {named}) ;;
    *) return ;;
    esac
    # A VM has chosen its name: it is compared and quoted, never evaluated.
    while IFS= read -r line; do
        if [[ "$line" == "$current"* ]]; then
            printf -v quoted %q "$line"
            COMPREPLY+=("$quoted")
        fi
    done < <(vspcctl "${{where[@]}}" _names 2>/dev/null)
}}
complete -F _vspcctl vspcctl
"""

ZSH = """\
#compdef vspcctl
# zsh completion of vspcctl:  vspcctl completion zsh > "${{fpath[1]}}/_vspcctl"
_vspcctl_consoles() {{
    local -a names where
    local i
    for ((i = 2; i < $#words_before; i++)); do
        case $words_before[i] in
        --root|--socket) where+=($words_before[i] ${{~words_before[i+1]}}) ;;
        esac
    done
    names=("${{(@f)$(vspcctl $where _names 2>/dev/null)}}")
    # compadd quotes: a VM has chosen its name.
    compadd -a names
}}
_vspcctl() {{
    local -a commands words_before
    local i command=
    words_before=($words)
    commands=(
{commands}
    )
    for ((i = 2; i < CURRENT; i++)); do
        case $words[i] in
        --root|--socket) ((i++)) ;;
        -*) ;;
        *) command=$words[i]; break ;;
        esac
    done
    if [[ -z $command ]]; then
        _arguments '--root[the private root of the daemon]:directory:_files -/' \\
            '--socket[the control socket]:file:_files' '--version[show the version]' \\
            '*:command:{{_describe command commands}}'
        return
    fi
    shift $((i - 1)) words
    ((CURRENT -= i - 1))
    case $command in
{cases}
    esac
}}
if [[ $funcstack[1] == _vspcctl ]]; then _vspcctl "$@"; else compdef _vspcctl vspcctl; fi
"""

FISH = """\
# fish completion of vspcctl:  vspcctl completion fish | source
function __vspcctl_names
    set -l words (commandline -opc)
    set -l where
    for i in (seq (count $words))
        if contains -- $words[$i] --root --socket; and test (math $i + 1) -le (count $words)
            set -a where $words[$i] $words[(math $i + 1)]
        end
    end
    vspcctl $where _names 2>/dev/null
end
"""

SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
