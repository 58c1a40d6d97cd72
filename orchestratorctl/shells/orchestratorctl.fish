# Completion of orchestratorctl for fish: orchestratorctl completion fish | source

function __orchestratorctl_complete
    set -l words (commandline --tokenize --cut-at-cursor --current-process)
    set -l current (commandline --current-token --cut-at-cursor)
    # A status other than 0 means: the name of a file.
    $words[1] __complete fish $words[2..] "$current" 2>/dev/null
    or __fish_complete_path "$current"
end

complete --command orchestratorctl --no-files --keep-order --arguments '(__orchestratorctl_complete)'
