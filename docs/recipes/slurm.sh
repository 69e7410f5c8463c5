#!/usr/bin/env bash
# A night on four GPUs of a Slurm cluster: a Ray node on each machine, the loop on the first.
# Submit it with `sbatch docs/recipes/slurm.sh`. The workspace, the environment and AR_DATA_DIR must be on a file system that all
# nodes share.
#SBATCH --job-name=autoresearch
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=2
#SBATCH --cpus-per-task=16
#SBATCH --exclusive
#SBATCH --time=10:00:00
set -euo pipefail

WORKSPACE=${WORKSPACE:-$HOME/night}
export AR_DATA_DIR=${AR_DATA_DIR:-$HOME/autoresearch-data}
export RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=6379

srun --nodes=1 --ntasks=1 -w "$head" ray start --head --port="$port" --block &
sleep 20
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
        ray start --address="$head:$port" --block &
    sleep 20
fi

# Submitting the same job again resumes the run.
srun --overlap --nodes=1 --ntasks=1 -w "$head" \
    ar --workspace "$WORKSPACE" --backend cuda loop --tag night --fleet ray --address "$head:$port" --hours 9
