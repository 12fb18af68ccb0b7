#!/usr/bin/env bash
# A Slurm cluster on one host, on loopback, without systemd and cgroups; for tests, as root.
#
#   slurm_single_host.sh up      stop what a crash left, then start two nodes; n2 has two fake GPUs
#   slurm_single_host.sh down    end all jobs and stop the daemons that `up` started
#
# Everything it writes stands in one folder, SLURM_STATE, keys included; only links to its
# configuration stand in /etc/slurm while it is up (a job's own Snakemake drops SLURM_CONF), and a
# host that has a Slurm of its own is refused. Tried with Slurm 22.05 (make system-packages).
set -euo pipefail

STATE=${SLURM_STATE:-${TMPDIR:-/tmp}/strata-slurm}
FIRST_PORT=${SLURM_FIRST_PORT:-27001}  # and the two after it
NODES=(n1 n2)
PROGRAMS=(munged munge slurmctld slurmd sbatch srun squeue sinfo scontrol scancel)
LINKED=(slurm.conf gres.conf)

refuse() {
  echo "$1" >&2
  exit 2
}

require() {
  for program in "${PROGRAMS[@]}"; do
    command -v "$program" > /dev/null || refuse "$program is missing: make system-packages"
  done
  [[ $(id -u) == 0 ]] || refuse "Slurm's daemons start as root only; run the system tests as root."
  for file in "${LINKED[@]}"; do
    [[ ! -e /etc/slurm/$file || -L /etc/slurm/$file ]] \
      || refuse "/etc/slurm/$file is of another Slurm: the system tests need a host without one."
  done
}

wait_for() {
  local what=$1
  shift
  for _ in {1..80}; do
    "$@" > /dev/null 2>&1 && return
    sleep 0.25
  done
  tail -n 20 "$STATE"/log/*.log >&2 || true
  refuse "$what did not start within 20 s (its log stands above); after: make system-packages"
}

configure() {
  mkdir -p "$STATE"/{ctld,log,run,dev,munge,spool-n1,spool-n2}
  chmod 755 "$STATE" "$STATE"/*
  chmod 700 "$STATE/munge"
  # Files of GPUs have to be character devices; these are /dev/null.
  for i in 0 1; do
    [[ -c $STATE/dev/nvidia$i ]] || mknod "$STATE/dev/nvidia$i" c 1 3
  done
  echo "NodeName=n2 Name=gpu File=$STATE/dev/nvidia[0-1] Flags=nvidia_gpu_env" > "$STATE/gres.conf"
  local host node port=$FIRST_PORT
  host=$(hostname -s)
  cat > "$STATE/slurm.conf" << END
ClusterName=strata-tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a requeued job waits; the default is 120 s.
AuthInfo=socket=$STATE/run/munge.socket,cred_expire=5
StateSaveLocation=$STATE/ctld
SlurmdSpoolDir=$STATE/spool-%n
SlurmctldPidFile=$STATE/run/slurmctld.pid
SlurmdPidFile=$STATE/run/slurmd-%n.pid
SlurmctldLogFile=$STATE/log/slurmctld.log
SlurmdLogFile=$STATE/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# Without cgroups, memory is looked at so often (s), and who holds more than asked for is killed.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
ReturnToService=2
# How long squeue knows of a finished job (s): Snakemake asks squeue.
MinJobAge=3600
KillWait=30
JobRequeue=1
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# Nodes claim more than the host has; jobs of a test share it.
SlurmdParameters=config_overrides
END
  for node in "${NODES[@]}"; do
    local gpus=""
    [[ $node == n2 ]] && gpus="Gres=gpu:2"
    echo "NodeName=$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$((++port)) CPUs=8 Boards=1" \
      "SocketsPerBoard=1 CoresPerSocket=8 ThreadsPerCore=1 RealMemory=64000 $gpus" >> "$STATE/slurm.conf"
  done
  cat >> "$STATE/slurm.conf" << END
PartitionName=cpu Nodes=n1,n2 Default=YES PriorityTier=5
PartitionName=gpu Nodes=n2 PriorityTier=5
PartitionName=preemptible Nodes=n2 PriorityTier=1
PartitionName=urgent Nodes=n2 PriorityTier=9
END
}

up() {
  require
  down
  rm -rf "$STATE"
  configure
  mkdir -p /etc/slurm
  for file in "${LINKED[@]}"; do
    ln --symbolic --force --no-target-directory "$STATE/$file" "/etc/slurm/$file"
  done
  head -c 1024 /dev/urandom > "$STATE/munge/key"
  chmod 600 "$STATE/munge/key"
  munged --force --socket "$STATE/run/munge.socket" --key-file "$STATE/munge/key" \
    --seed-file "$STATE/munge/seed" --pid-file "$STATE/run/munged.pid" --log-file "$STATE/log/munged.log"
  wait_for munged munge --no-input --socket "$STATE/run/munge.socket"
  slurmctld
  wait_for slurmctld is_up
  for node in "${NODES[@]}"; do
    slurmd -N "$node"
  done
  wait_for slurmd are_idle
}

is_up() { [[ $(scontrol ping) == *" is UP" ]]; }

are_idle() { [[ $(sinfo --noheader --Node --partition cpu --states idle | wc -l) == "${#NODES[@]}" ]]; }

down() {
  if [[ -f $STATE/slurm.conf ]] && is_up 2> /dev/null; then
    scancel --user root --state PENDING || true
    # What stands still heeds no other signal.
    scancel --user root --signal KILL --full || true
    for _ in {1..60}; do
      [[ -z $(squeue --noheader) ]] && break
      sleep 0.25
    done
  fi
  local name
  for name in slurmd-n1 slurmd-n2 slurmctld munged; do
    stop "$STATE/run/$name.pid" "${name%-n?}"
  done
  for name in "${LINKED[@]}"; do
    [[ $(readlink "/etc/slurm/$name") != "$STATE/$name" ]] || rm "/etc/slurm/$name"
  done
}

# A process id may have gone to another program since the file was written.
stop() {
  local file=$1 program=$2 id
  [[ -f $file ]] || return 0
  id=$(< "$file")
  if runs "$id" "$program"; then
    kill "$id"
    for _ in {1..40}; do
      runs "$id" "$program" || break
      sleep 0.25
    done
    ! runs "$id" "$program" || kill -KILL "$id"
  fi
  rm -f "$file"
}

runs() {
  [[ $(cat "/proc/$1/comm" 2> /dev/null) == "$2" ]] && ! grep -q "^State:.*Z" "/proc/$1/status"
}

case "${1:-}" in
  up) up ;;
  down) down ;;
  *)
    sed -n 2,9p "$0"
    exit 2
    ;;
esac
