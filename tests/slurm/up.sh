#!/usr/bin/env bash
# A SLURM of one node on this machine's loopback, for tests: installs Debian's packages where they are missing, starts
# munge, slurmctld and slurmd, and returns when the node is idle. Needs root. tests/slurm/down.sh ends it.
#
#   SLURM_SANDBOX   folder for its state, logs and process numbers (default /tmp/slurm-sandbox)
#
# There is no accounting, as on some small clusters, and the four GPUs are simulated by copies of /dev/null.
set -euo pipefail
sandbox=${SLURM_SANDBOX:-/tmp/slurm-sandbox}
host=$(hostname -s)

if [ "$(id -u)" != 0 ]; then echo "found user $(id -un), needed root: SLURM starts jobs as their users" >&2; exit 1; fi
for config in /etc/slurm/slurm.conf /etc/slurm-llnl/slurm.conf; do
    if [ -e "$config" ]; then echo "found $config: this machine belongs to a cluster, which a test must not touch" >&2; exit 1; fi
done
if ! command -v slurmctld slurmd sbatch munged >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq --no-install-recommends slurmctld slurmd slurm-client munge >/dev/null
fi

mkdir -p "$sandbox"/{state,spool,log} /etc/slurm
install -d -m 0755 -o munge -g munge /run/munge
[ -s /etc/munge/munge.key ] || mungekey --create --keyfile=/etc/munge/munge.key
chown munge:munge /etc/munge/munge.key
chmod 400 /etc/munge/munge.key
if ! munge -n >/dev/null 2>&1; then
    setpriv --reuid=munge --regid=munge --init-groups munged --foreground --num-threads=2 >"$sandbox/log/munged.log" 2>&1 &
    echo $! >"$sandbox/munged.pid"
fi

# It has more CPUs and memory than the machine (config_overrides), so that several jobs run at once; long timeouts, because a busy
# machine takes a while to answer. SLURM reads its configuration from /etc/slurm only: the srun inside a job would not
# find it elsewhere.
cat >/etc/slurm/slurm.conf <<CONF
ClusterName=sandbox
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmdParameters=config_overrides
AuthType=auth/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$sandbox/state
SlurmdSpoolDir=$sandbox/spool
SlurmctldPidFile=$sandbox/slurmctld.run
SlurmdPidFile=$sandbox/slurmd.run
SlurmctldLogFile=$sandbox/log/slurmctld.log
SlurmdLogFile=$sandbox/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1,sched_min_interval=0
GresTypes=gpu
ReturnToService=2
MinJobAge=600
KillWait=${SLURM_KILL_WAIT:-30}
MessageTimeout=60
UnkillableStepTimeout=300
BatchStartTimeout=300
SlurmdTimeout=0
InactiveLimit=0
Waittime=0
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 Gres=gpu:4 State=UNKNOWN
PartitionName=cpu Nodes=$host Default=YES MaxTime=1440 State=UP
PartitionName=gpu Nodes=$host MaxTime=1440 State=UP
CONF
for i in 0 1 2 3; do [ -e "$sandbox/gpu$i" ] || mknod "$sandbox/gpu$i" c 1 3; done
echo "Name=gpu File=$sandbox/gpu[0-3]" >/etc/slurm/gres.conf

for _ in $(seq 3000); do munge -n >/dev/null 2>&1 && break; sleep 0.1; done
slurmctld -D -i -c >"$sandbox/log/slurmctld.out" 2>&1 &
echo $! >"$sandbox/slurmctld.pid"
slurmd -D -c -N "$host" >"$sandbox/log/slurmd.out" 2>&1 &
echo $! >"$sandbox/slurmd.pid"
for _ in $(seq 3000); do
    if sinfo -h -o %T 2>/dev/null | grep -qE 'idle|mixed|allocated'; then exit 0; fi
    sleep 0.1
done
echo "SLURM did not come up within five minutes; its logs:" >&2
tail -n 20 "$sandbox"/log/* >&2
exit 1
