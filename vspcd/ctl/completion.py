"""vspcctl completion: prints a completion script for bash, zsh or fish.

Does: fills in the commands and options from the parser itself, so that they cannot differ from it. Names of
consoles are asked from the daemon while the user types, by the hidden command ``_names``.
Owns: the scripts.
Never: lets a shell evaluate a console's name. A VM may call itself ``$(reboot)``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Union

from vspcd.ctl.commandline import COMMANDS, build_parser, subparsers
from vspcd.ctl.failure import OK

FILES, FOLDERS = "files", "folders"
KINDS = {"FILE": FILES, "PATH": FILES, "DIR": FOLDERS}
TIMES = ("10m", "1h", "6h", "1d", "1w", "today", "yesterday")
"""Values of --since and --until that need no quotes; there are many more."""


class Option(NamedTuple):
    """``values``: words that may follow; FILES or FOLDERS; empty when they cannot be known."""

    names: tuple[str, ...]
    help: str
    takes_value: bool
    values: Union[str, tuple[str, ...]] = ()


def run(arguments: argparse.Namespace) -> int:
    sys.stdout.write(SHELLS[arguments.shell]())
    return OK


def _parsers() -> dict[str, argparse.ArgumentParser]:
    """Each command's parser, and the whole one under an empty name."""
    whole = build_parser(list(COMMANDS))
    below = subparsers(whole)
    return {"": whole, **{name: below[name] for name in COMMANDS}}


def _named(parsers: dict[str, argparse.ArgumentParser], what: str) -> list[str]:
    """The commands that take a console's NAME, or a FILE."""
    return [
        name
        for name, parser in parsers.items()
        if any(not action.option_strings and action.metavar == what for action in parser._actions)
    ]


def _options(parser: argparse.ArgumentParser) -> list[Option]:
    return [
        Option(tuple(action.option_strings), _plain(action.help), action.nargs != 0, _values(action))
        for action in parser._actions
        if action.option_strings
    ]


def _values(action: argparse.Action) -> Union[str, tuple[str, ...]]:
    if action.choices:
        return tuple(map(str, action.choices))
    if action.metavar == "TIME":
        return TIMES
    if "--sysrq" in action.option_strings:
        from vspcd.ctl import sysrq

        return tuple(each.name for each in sysrq.TABLE)
    if "--vmotion" in action.option_strings:
        from vspcd.simulator.options import VARIANTS

        return ("random", *VARIANTS)
    return KINDS.get(str(action.metavar), ())


def _plain(text: object) -> str:
    """A help text without what any of the shells would take for its own."""
    shown = "".join(" " if c in '"[]:\\$`\n' else "\u2019" if c == "'" else c for c in str(text or ""))
    return " ".join(shown.split())


def _words(options: Iterable[Option]) -> str:
    return " ".join(name for option in options for name in option.names)


def _bash() -> str:
    parsers = _parsers()
    cases = "\n".join(f"        {name}) words='{_words(_options(parsers[name]))}' ;;" for name in COMMANDS)
    return BASH.format(
        commands=" ".join(COMMANDS),
        cases=cases,
        top=_words(_options(parsers[""])),
        values="\n".join(f"    {line}" for line in _bash_values(parsers)),
        named="|".join(_named(parsers, "NAME")),
        filed="|".join(_named(parsers, "FILE")),
    )


def _bash_values(parsers: dict[str, argparse.ArgumentParser]) -> Iterator[str]:
    """What follows which option of which command: an option of one name takes a value here and none there."""
    found: dict[Union[str, tuple[str, ...]], list[str]] = {}
    for command, parser in parsers.items():
        for option in _options(parser):
            if option.takes_value:
                found.setdefault(option.values, []).extend(f"'{command} {name}'" for name in option.names)
    for values, where in found.items():
        shown = {FILES: "-f", FOLDERS: "-d"}.get(str(values)) or f"-W '{' '.join(values)}'"
        yield f'{"|".join(where)}) mapfile -t COMPREPLY < <(compgen {shown} -- "$current"); return ;;'


def _zsh() -> str:
    parsers = _parsers()
    commands = "\n".join(f"    '{name}:{_plain(command.help)}'" for name, command in COMMANDS.items())
    cases = "\n".join(f"        {name}) _arguments {_zsh_specs(parsers[name])} ;;" for name in COMMANDS)
    return ZSH.format(commands=commands, cases=cases)


def _zsh_specs(parser: argparse.ArgumentParser) -> str:
    specs = [
        f"'{name}[{option.help}]{_zsh_value(option)}'" for option in _options(parser) for name in option.names
    ]
    words = [action for action in parser._actions if not action.option_strings]
    for place, action in enumerate(words, 1):
        where = "*" if action.nargs in ("*", "+") else str(place)
        if action.metavar == "NAME":
            specs.append(f"'{where}:console:_vspcctl_consoles'")
        else:
            about = str(action.metavar or action.dest).lower()
            specs.append(f"'{where}:{about}:{_zsh_action(_values(action))}'")
    return " ".join(specs)


def _zsh_value(option: Option) -> str:
    return f":value:{_zsh_action(option.values)}" if option.takes_value else ""


def _zsh_action(values: Union[str, tuple[str, ...]]) -> str:
    if isinstance(values, str):
        return "_files -/" if values == FOLDERS else "_files"
    return f"({' '.join(values)})" if values else " "


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
    named = " ".join(_named(parsers, "NAME"))
    lines.append(
        f"complete -c vspcctl -n '__fish_seen_subcommand_from {named}' -f -a '(__vspcctl_names)'\n"
        f"complete -c vspcctl -n '__fish_seen_subcommand_from {' '.join(_named(parsers, 'FILE'))}' -F\n"
        "complete -c vspcctl -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'\n"
    )
    return "".join(lines)


def _fish_option(option: Option) -> str:
    names = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
    value = ""
    if option.takes_value:
        value = {FILES: " -r -F", FOLDERS: " -x -a '(__fish_complete_directories)'"}.get(
            str(option.values)
        ) or " -x"
        value += (
            f" -a '{' '.join(option.values)}'" if isinstance(option.values, tuple) and option.values else ""
        )
    return " ".join(names) + value + f" -d '{option.help}'"


BASH = """\
# bash completion of vspcctl:  source <(vspcctl completion bash)
_vspcctl() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
    if [[ $current == = ]]; then
        current=
    elif [[ $before == = ]]; then
        before="${{COMP_WORDS[COMP_CWORD-2]}}"
    fi
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
    case "$command $before" in
{values}
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
    {filed}) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
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
