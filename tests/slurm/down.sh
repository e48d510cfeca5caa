#!/usr/bin/env bash
# Ends what tests/slurm/up.sh started: jobs, daemons, configuration. Safe to call twice.
set -uo pipefail
sandbox=${SLURM_SANDBOX:-/tmp/slurm-sandbox}
[ -d "$sandbox" ] || exit 0
# With the configuration gone, snakemake does not wait ten seconds for a controller at every start.
if grep -q "StateSaveLocation=$sandbox/" /etc/slurm/slurm.conf 2>/dev/null; then
    timeout 10 scancel --user=root 2>/dev/null && sleep 1
    rm -f /etc/slurm/slurm.conf /etc/slurm/gres.conf
fi
for name in slurmd slurmctld munged; do
    [ -s "$sandbox/$name.pid" ] || continue
    pid=$(cat "$sandbox/$name.pid")
    kill "$pid" 2>/dev/null
    for _ in $(seq 50); do
        # Z: a zombie, which has ended.
        state=$(ps -o stat= -p "$pid" 2>/dev/null) || break
        case $state in Z*) break ;; esac
        sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null
done
rm -rf "$sandbox"
exit 0
