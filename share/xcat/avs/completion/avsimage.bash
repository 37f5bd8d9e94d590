# shellcheck shell=bash
# Completion of avsimage for bash, without any other package. What fits is said by the program itself, which is waited
# for a quarter of a second (AVS_COMPLETION_SECONDS): names that it has to ask xCAT for come with the next TAB.
_avsimage() {
    local answer='' line word mode=-
    COMPREPLY=()
    IFS= read -r -d '' -t "${AVS_COMPLETION_SECONDS:-0.25}" answer < <("${COMP_WORDS[0]}" --complete bash "$((COMP_CWORD - 1))" "${COMP_WORDS[@]:1}" </dev/null 2>/dev/null)
    case ${answer%%$'\n'*} in
        files) compopt -o default ;;
        directories) compopt -o dirnames ;;
        words)
            while IFS= read -r line; do
                [[ -z $line ]] || COMPREPLY+=("${line%%$'\t'*}")
            done <<<"${answer#*$'\n'}"
            ;;
        '')
            # The machine is busy: modes and options, which were put in here when this was installed.
            [[ -n ${_avsimage_modes:-} ]] || return
            for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
                [[ " $_avsimage_modes " != *" $word "* ]] || { mode=$word; break; }
            done
            word=${COMP_WORDS[COMP_CWORD]}
            if [[ $word == -* ]]; then
                # shellcheck disable=SC2154
                mapfile -t COMPREPLY < <(compgen -W "${_avsimage_options[$mode]}" -- "$word")
            elif [[ $mode == - ]]; then
                mapfile -t COMPREPLY < <(compgen -W "$_avsimage_modes" -- "$word")
            fi
            ;;
    esac
}
complete -F _avsimage avsimage
