#compdef orchestratorctl
# Completion of orchestratorctl for zsh: eval "$(orchestratorctl completion zsh)"

_orchestratorctl() {
    local found
    # A status other than 0 means: the name of a file.
    if ! found=$(${~words[1]} __complete zsh "${(@)words[2,CURRENT]}" 2>/dev/null); then
        _files
        return
    fi
    local -a candidates=(${(f)found})
    local -a ending
    # What ends like this goes on with a value.
    [[ ${candidates[1]%%:*} == *= ]] && ending=(-S '')
    _describe -V orchestratorctl candidates "${(@)ending}"
}

if [[ ${funcstack[1]} == _orchestratorctl ]]; then
    _orchestratorctl "$@"
else
    compdef _orchestratorctl orchestratorctl
fi
