# shellcheck shell=bash
# Completion of avsimage for bash, without any other package. What fits is said by the program itself, which is waited
# for a quarter of a second: names that it has to ask xCAT for come with the next TAB.
_avsimage() {
    local answer='' line
    COMPREPLY=()
    IFS= read -r -d '' -t 0.25 answer < <("${COMP_WORDS[0]}" --complete bash "$((COMP_CWORD - 1))" "${COMP_WORDS[@]:1}" </dev/null 2>/dev/null)
    case ${answer%%$'\n'*} in
        files) compopt -o default ;;
        directories) compopt -o dirnames ;;
        words)
            while IFS= read -r line; do
                [[ -z $line ]] || COMPREPLY+=("${line%%$'\t'*}")
            done <<<"${answer#*$'\n'}"
            ;;
    esac
}
complete -F _avsimage avsimage
