#!/bin/sh
# What `gearman -w` runs for a job: the workload is standard input, standard output the answer.
# Arguments: behaviour log. Workloads of everything but `reverse` are one line of text.
set -eu

hold() {
    case $1 in
    wait=*)
        gate=${1#wait=}
        # A FIFO: ends when the test has opened and closed it.
        cat "${gate%%;*}" >/dev/null
        ;;
    esac
}

case $1 in
reverse)
    exec perl -0777 -ne 'print scalar reverse'
    ;;
raise)
    cat
    exit 1
    ;;
steps)
    workload=$(cat)
    hold "$workload"
    printf done
    ;;
record)
    workload=$(cat)
    hold "$workload"
    printf '{"workload": "%s", "unique": null}\n' "$workload" >>"$2"
    printf '%s' "$workload"
    ;;
esac
