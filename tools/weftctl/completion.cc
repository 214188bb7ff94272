// SPDX-License-Identifier: Apache-2.0
// Completion scripts. They ask weftctl itself for the names of functions and hosts.
#include <cstdio>

#include "tools/weftctl/commands.h"

namespace weft::ctl {
namespace {

constexpr char kBash[] = R"sh(# weftctl completion for bash: source <(weftctl completion bash)
_weftctl() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= what= i run_dir=() config=() words=
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      --run-dir) run_dir=(--run-dir "${COMP_WORDS[i+1]}"); ((i++)) ;;
      --config) config=(--config "${COMP_WORDS[i+1]}"); ((i++)) ;;
      -o|--output|--if-revision) ((i++)) ;;
      -*) ;;
      *) if [[ -z $command ]]; then command=${COMP_WORDS[i]}; elif [[ -z $what ]]; then what=${COMP_WORDS[i]}; fi ;;
    esac
  done
  case $prev in
    -o|--output) COMPREPLY=($(compgen -W "table wide json yaml" -- "$cur")); return ;;
    --run-dir) COMPREPLY=($(compgen -d -- "$cur")); return ;;
    --file|--config) COMPREPLY=($(compgen -f -- "$cur")); return ;;
  esac
  case $command in
    "") words="status check get call validate explain drain apply delete edit ca version completion --run-dir --output --help" ;;
    get)
      words="nodes functions hosts routes channels changes policy"
      [[ $what == policy ]] && words="--config $(weftctl names policy "${config[@]}" 2>/dev/null)" ;;
    delete|edit)
      words="--config $(weftctl names policy "${config[@]}" 2>/dev/null)"
      [[ $command == delete ]] && words+=" --dry-run --if-revision" ;;
    apply)
      words="--config --dry-run --if-revision"
      COMPREPLY=($(compgen -W "$words" -- "$cur") $(compgen -f -- "$cur")); return ;;
    call) words="--as --file --timeout $(weftctl "${run_dir[@]}" names functions 2>/dev/null)" ;;
    explain) words=$(weftctl "${run_dir[@]}" names functions 2>/dev/null) ;;
    drain) words="--timeout $(weftctl "${run_dir[@]}" names hosts 2>/dev/null)" ;;
    validate) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    ca)
      words="init issue revoke --trust-domain --days --out --replace --certificate"
      COMPREPLY=($(compgen -W "$words" -- "$cur") $(compgen -d -- "$cur")); return ;;
    completion) words="bash zsh fish" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -F _weftctl weftctl
)sh";

constexpr char kZsh[] = R"sh(#compdef weftctl
# weftctl completion for zsh: weftctl completion zsh > "${fpath[1]}/_weftctl"
_weftctl() {
  local context state state_descr line
  typeset -A opt_args
  _arguments -C \
    '--run-dir[directory of the sockets]:directory:_directories' \
    '(-o --output)'{-o,--output}'[format]:format:(table wide json yaml)' \
    '--help[print help]' \
    '1:command:(status check get call validate explain drain apply delete edit ca version completion)' \
    '*::argument:->argument'
  [[ $state == argument ]] || return
  local -a run_dir names
  [[ -n ${opt_args[--run-dir]} ]] && run_dir=(--run-dir ${opt_args[--run-dir]})
  case $words[1] in
    get)
      if [[ $words[2] == policy ]]; then
        names=(${(f)"$(weftctl names policy 2>/dev/null)"}); compadd -a names
      else
        _values what nodes functions hosts routes channels changes policy
      fi ;;
    delete|edit) names=(${(f)"$(weftctl names policy 2>/dev/null)"}); compadd -a names ;;
    apply) _files ;;
    call|explain) names=(${(f)"$(weftctl $run_dir names functions 2>/dev/null)"}); compadd -a names ;;
    drain) names=(${(f)"$(weftctl $run_dir names hosts 2>/dev/null)"}); compadd -a names ;;
    validate) _files ;;
    ca) _alternative 'command:command:(init issue revoke)' 'directory:directory:_directories' ;;
    completion) _values shell bash zsh fish ;;
  esac
}
_weftctl "$@"
)sh";

constexpr char kFish[] = R"sh(# weftctl completion for fish: weftctl completion fish | source
set -l commands status check get call validate explain drain apply delete edit ca version completion
complete -c weftctl -f
complete -c weftctl -l run-dir -x -a '(__fish_complete_directories)' -d 'directory of the sockets'
complete -c weftctl -s o -l output -x -a 'table wide json yaml' -d 'format'
complete -c weftctl -n "not __fish_seen_subcommand_from $commands" -a "$commands"
complete -c weftctl -n '__fish_seen_subcommand_from get' -a 'nodes functions hosts routes channels changes policy'
complete -c weftctl -n '__fish_seen_subcommand_from policy delete edit' -a '(weftctl names policy 2>/dev/null)'
complete -c weftctl -n '__fish_seen_subcommand_from policy apply delete edit' -l config -r -F -d 'weft-control.yaml'
complete -c weftctl -n '__fish_seen_subcommand_from apply' -F
complete -c weftctl -n '__fish_seen_subcommand_from apply delete' -l dry-run -d 'write nothing'
complete -c weftctl -n '__fish_seen_subcommand_from apply delete' -l if-revision -x -d 'only at this revision'
complete -c weftctl -n '__fish_seen_subcommand_from call explain' -a '(weftctl names functions 2>/dev/null)'
complete -c weftctl -n '__fish_seen_subcommand_from call' -l as -x -d 'namespace to call as'
complete -c weftctl -n '__fish_seen_subcommand_from call' -l file -r -F -d 'file with the payload'
complete -c weftctl -n '__fish_seen_subcommand_from drain' -a '(weftctl names hosts 2>/dev/null)'
complete -c weftctl -n '__fish_seen_subcommand_from validate' -F
complete -c weftctl -n '__fish_seen_subcommand_from ca' -F -a 'init issue revoke'
complete -c weftctl -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'
)sh";

}  // namespace

int RunCompletion(const std::string& shell) {
  std::fputs(shell == "bash" ? kBash : shell == "zsh" ? kZsh : kFish, stdout);
  return 0;
}

}  // namespace weft::ctl
