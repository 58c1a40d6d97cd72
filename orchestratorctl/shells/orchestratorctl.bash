# Completion of orchestratorctl for bash: eval "$(orchestratorctl completion bash)"

_orchestratorctl() {
    local found word
    COMPREPLY=()
    # A status other than 0 means: the name of a file.
    if ! found=$("${COMP_WORDS[0]/#\~/$HOME}" __complete bash \
        "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null); then
        compopt -o default
        return
    fi
    while IFS= read -r word; do
        [[ -n $word ]] && COMPREPLY+=("$word")
    done <<<"$found"
    # What ends like this goes on with a value.
    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
    return 0
}

complete -o nosort -F _orchestratorctl orchestratorctl
