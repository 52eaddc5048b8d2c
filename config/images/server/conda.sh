# conda in bash, zsh and sh: activation for every environment that one sees; kernels/terminal.py
# does the work. A real conda's or mamba's own shell set-up, where somebody runs it, takes its place.
conda() { _labcommons_conda conda "$@"; }
mamba() { _labcommons_conda mamba "$@"; }
micromamba() { _labcommons_conda micromamba "$@"; }
_labcommons_conda() {
    case "${2:-}" in
        activate | deactivate | reactivate)
            _labcommons_words="$(/opt/labcommons/server/bin/python -I -m kernels.terminal --shell "$@")" || return
            eval "$_labcommons_words"
            ;;
        *) /opt/labcommons/server/bin/python -I -m kernels.terminal --shell "$@" ;;
    esac
}
# What bash and zsh say of a command that is not there: where it has another way here, that.
command_not_found_handle() { /opt/labcommons/server/bin/python -I -m kernels.absent --not-found "$@"; }
command_not_found_handler() { command_not_found_handle "$@"; }
