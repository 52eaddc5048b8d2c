# conda in bash and zsh: activation for every environment that one sees; kernels/terminal.py does
# the work. A real conda's or mamba's own shell set-up, where somebody runs it, takes its place.
conda() { _labcommons_conda conda "$@"; }
mamba() { _labcommons_conda mamba "$@"; }
_labcommons_conda() {
    case "${2:-}" in
        activate | deactivate)
            local words
            words="$(/opt/labcommons/server/bin/python -I -m kernels.terminal "$@")" || return
            eval "$words"
            ;;
        *) /opt/labcommons/server/bin/python -I -m kernels.terminal "$@" ;;
    esac
}
