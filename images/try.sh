#!/usr/bin/env bash
# Builds the image from a base of Debian packages, without any registry, and tries it hardened: alone, then as a cluster.
usage() { cat <<'X'
usage: images/try.sh [COMMAND ...]     (root; Debian's podman, buildah, runc, debootstrap, iproute2)
  base      a Debian base image by debootstrap, unless there is one
  build     the image of this checkout from it; unchanged layers are kept, so a change of chexray takes a minute
  run       `chexray run` on 80 phantoms in one container: uid 1000, read-only root, no capabilities, no network
  cluster   the same through `ray job submit` and `chexray submit`, with token auth: a head, two workers and a
            submitter from that image, each in a network namespace, started as KubeRay starts them
  clean     what a stopped `run` or `cluster` left; the image and its layers stay
  prune     layers without a name: frees half of the store, and the next build installs everything again
            (no COMMAND: base build run cluster)
environment (defaults):
  STORE        where images and results go (out/image-store); 25 GB for the default image
  IMAGE        localhost/chexray:VERSION of pyproject.toml
  BASE_IMAGE   localhost/chexray-base:bookworm       SUITE  bookworm       MIRROR  debootstrap's own
  RELEASE      0; 1 refuses a BASE_IMAGE without a digest
  VARIANT      gpu, which runs on CPUs too; cpu needs PIP_EXTRA_INDEX_URL and images/lock/cpu.txt
  PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS   passed to the build where set
  CA_BUNDLE PIP_CONF                                 files, passed to the build as secrets where set
  BUILD_OPTIONS  more options of `buildah build`, e.g. "--volume /srv/wheels:/srv/wheels:ro"
  RIG cxi      prefix of namespaces and containers (at most 4 letters)    NET 10.78.0     MEMORY 3g a container
X
}
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml")
STORE=${STORE:-$root/out/image-store} SUITE=${SUITE:-bookworm} VARIANT=${VARIANT:-gpu}
IMAGE=${IMAGE:-localhost/chexray:$version} BASE_IMAGE=${BASE_IMAGE:-localhost/chexray-base:$SUITE}
RIG=${RIG:-cxi} NET=${NET:-10.78.0} MEMORY=${MEMORY:-3g}
nodes=(head w1 w2 cli)

fail() { echo "images/try.sh: $*" >&2; exit 1; }
need() { local tool; for tool in "$@"; do command -v "$tool" > /dev/null || fail "$tool is missing; see --help for the packages"; done; }
say() { echo "== $*"; }
pod() { podman --runtime runc --cgroup-manager=cgroupfs --events-backend=none --log-level=error "$@"; }

open_store() {
  [ "$(id -u)" = 0 ] || fail "containers and namespaces are made by root here; run it as root"
  mkdir -p "$STORE"
  printf '[storage]\ndriver = "overlay"\nrunroot = "%s/run"\ngraphroot = "%s/store"\n' "$STORE" "$STORE" > "$STORE/storage.conf"
  export CONTAINERS_STORAGE_CONF=$STORE/storage.conf
}

base() {
  need podman runc debootstrap tar
  if pod image exists "$BASE_IMAGE"; then echo "base: $BASE_IMAGE is there"; return; fi
  rm -rf "$STORE/rootfs"
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv,wget,tini,procps \
    "$SUITE" "$STORE/rootfs" ${MIRROR:+"$MIRROR"} > "$STORE/debootstrap.log" || fail "debootstrap: see $STORE/debootstrap.log"
  tar -C "$STORE/rootfs" --exclude='./dev/*' --exclude='./proc/*' --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' -cf - . \
    | pod import --quiet - "$BASE_IMAGE" > /dev/null
  rm -rf "$STORE/rootfs"
  echo "base: $BASE_IMAGE made"
}

build() {
  need podman runc buildah
  local name options=() started=$SECONDS
  for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS; do
    [ -z "${!name:-}" ] || options+=(--build-arg "$name=${!name}")
  done
  [ -z "${CA_BUNDLE:-}" ] || options+=(--secret "id=ca_bundle,src=$CA_BUNDLE")
  [ -z "${PIP_CONF:-}" ] || options+=(--secret "id=pip_conf,src=$PIP_CONF")
  read -r -a more <<< "${BUILD_OPTIONS:-}"
  mkdir -p "$STORE/tmp"
  TMPDIR=$STORE/tmp buildah build --format docker --isolation chroot --network host --layers "${options[@]}" "${more[@]}" \
    --build-arg BASE_IMAGE="$BASE_IMAGE" --build-arg VARIANT="$VARIANT" --build-arg VERSION="$version" --build-arg RELEASE="${RELEASE:-0}" \
    --build-arg REVISION="$(git -C "$root" rev-parse --short HEAD 2> /dev/null || echo unknown)" \
    --tag "$IMAGE" "$root" > "$STORE/build.log" 2>&1 || { tail -n 5 "$STORE/build.log" >&2; fail "the build failed: see $STORE/build.log"; }
  echo "build: $IMAGE, $(pod image inspect "$IMAGE" --format '{{.Size}}' | awk '{printf "%.2f GB", $1 / 1e9}'), $((SECONDS - started)) s"
}

# What a pod of the restricted profile gets, no more: /tmp and HOME are memory, the root is read-only. Podman's own health
# timer needs systemd; `cluster` runs the image's check itself.
hardened=(--user 1000:1000 --read-only --read-only-tmpfs=false --tmpfs /tmp:rw,mode=1777,size=2g
  --tmpfs /home/ray:rw,mode=1777,size=64m --shm-size 512m --cap-drop ALL --security-opt no-new-privileges
  --no-healthcheck --memory "$MEMORY" --ulimit nofile=20000:20000 --ulimit nproc=32768:32768)

write_config() {                # a fresh folder DIR/output for uid 1000, and DIR/run.yaml
  rm -rf "$1"; mkdir -p "$1/output"; chown 1000:1000 "$1/output"
  cat > "$1/run.yaml" <<'X'
name: try
real: {name: phantom-real, source: phantom, generator: real, n: 40, seed: 1}
synthetic: [{name: phantom-good, source: phantom, generator: good, n: 40, seed: 2}]
encoders: [{name: pixels, side: 8}]
metrics: [fid, kid, prdc]
subsets: [all]
output: /output
X
}
volumes_of() { echo "--volume $1/run.yaml:/etc/chexray/run.yaml:ro --volume $1/output:/output"; }
values() { find "$1/output" -path '*/try-*/results.csv' -exec cut -d, -f1-7,9 {} +; }      # metric, value, error, interval, floor

same_numbers() {                # where `run` ran before
  [ -d "$STORE/one/output" ] || return 0
  [ "$(values "$STORE/one")" = "$(values "$STORE/cluster")" ] || fail "the cluster's numbers are not those of the single container"
  echo "cluster: the numbers of the single container, to the last digit"
}

inside='
echo "user: $(id -u):$(id -g), $(grep CapEff /proc/self/status | tr -s "\t" " "), $(python --version), $(ray --version)"
touch /opt/chexray/x /x 2> /dev/null && echo "the root can be written" && exit 1
for tool in bash python ray chexray wget tini; do command -v $tool > /dev/null || { echo "no $tool"; exit 1; }; done
for tool in gcc cc g++ make cmake ld git nvcc cyclonedx-py; do ! command -v $tool > /dev/null || { echo "build tool $tool is in the image"; exit 1; }; done
for cache in ~root/.cache /home/ray/.cache /var/lib/apt/lists/*_Packages; do [ ! -e "$cache" ] || { echo "$cache is in the image"; exit 1; }; done
python -c "import json; told = json.load(open(\"/opt/chexray/sbom.cdx.json\")); print(\"sbom:\", told[\"bomFormat\"], told[\"specVersion\"], len(told[\"components\"]), \"components\")"
echo "root: read-only; on PATH: bash python ray chexray wget tini; no compilers, no caches"
exec chexray run /etc/chexray/run.yaml'

run() {
  need podman runc
  pod image exists "$IMAGE" || fail "no image $IMAGE: images/try.sh base build"
  local started=$SECONDS
  write_config "$STORE/one"
  say "one container: no network, $MEMORY of memory"
  # shellcheck disable=SC2046
  pod run --rm --name "$RIG-one" --network none "${hardened[@]}" $(volumes_of "$STORE/one") "$IMAGE" \
    bash -c "$inside" || fail "the run in the container failed (exit code $?)"
  echo "run: done in $((SECONDS - started)) s, $(values "$STORE/one" | grep -c ^fidelity) numbers"
}

network_down() {
  local node
  for node in "${nodes[@]}"; do
    pod rm --force --time 0 "$RIG-$node" > /dev/null 2>&1 || true
    ip netns del "$RIG-$node" 2> /dev/null || true
  done
  ip link del "${RIG}br" 2> /dev/null || true
}
network_up() {
  local i node
  ip link add "${RIG}br" type bridge; ip link set "${RIG}br" up
  for i in "${!nodes[@]}"; do
    node=${nodes[$i]}
    ip netns add "$RIG-$node"
    ip link add "${RIG}v$i" type veth peer name eth0 netns "$RIG-$node"
    ip link set "${RIG}v$i" master "${RIG}br" up
    ip -n "$RIG-$node" addr add "$NET.$((i + 1))/24" dev eth0
    ip -n "$RIG-$node" link set lo up; ip -n "$RIG-$node" link set eth0 up
    ip -n "$RIG-$node" route add default dev eth0
  done
}
node() {                        # node NAME COMMAND: a container as KubeRay starts it, by bash and past the entrypoint
  # shellcheck disable=SC2046
  pod run --detach --name "$RIG-$1" --hostname "$1" --network "ns:/run/netns/$RIG-$1" "${hardened[@]}" $(volumes_of "$STORE/cluster") \
    --env RAY_AUTH_MODE=token --env RAY_AUTH_TOKEN --entrypoint '["/bin/bash","-c","--"]' "$IMAGE" "$2" > /dev/null
}
client() { pod exec --env RAY_ADDRESS="http://$NET.1:8265" "$RIG-cli" "$@"; }
until_true() {                  # until_true SECONDS WHAT COMMAND...
  local end=$((SECONDS + $1)) what=$2; shift 2
  until "$@" > /dev/null 2>&1; do [ "$SECONDS" -lt "$end" ] || fail "$what: not in time"; sleep 2; done
}
alive() { [ "$(pod exec "$RIG-head" python -c 'import ray; ray.init(address="auto", logging_level="error"); print(sum(n["Alive"] for n in ray.nodes()))' | tail -n 1)" = 3 ]; }

cluster() {
  need podman runc ip
  pod image exists "$IMAGE" || fail "no image $IMAGE: images/try.sh base build"
  local started=$SECONDS name limit='ulimit -n ${RAY_START_ULIMIT_OPEN_FILES:-65536}; '
  RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n'); export RAY_AUTH_TOKEN
  write_config "$STORE/cluster"
  network_down; trap network_down EXIT
  network_up
  node head "$limit ray start --head --port=6379 --num-cpus=0 --node-ip-address=$NET.1 --dashboard-host=0.0.0.0 --object-store-memory=100000000 --block"
  for name in w1:2 w2:3; do
    node "${name%:*}" "until ray health-check --address=$NET.1:6379; do sleep 2; done; $limit ray start --address=$NET.1:6379 --num-cpus=1 --node-ip-address=$NET.${name#*:} --object-store-memory=80000000 --block"
  done
  node cli 'exec sleep infinity'
  until_true 180 "the head's health" pod exec "$RIG-head" python -c "$(pod image inspect "$IMAGE" --format '{{index .HealthCheck.Test 3}}')"
  pod exec "$RIG-head" bash -c 'wget --tries 1 -T 2 -q -O- http://127.0.0.1:52365/api/local_raylet_healthz | grep success' > /dev/null \
    || fail "the probe that KubeRay runs by wget fails"
  until_true 180 "three nodes" alive
  say "cluster: head (0 CPU), w1, w2 (1 CPU each) up after $((SECONDS - started)) s"
  if pod exec --env RAY_AUTH_MODE=disabled --env RAY_AUTH_TOKEN= "$RIG-cli" ray job list --address "http://$NET.1:8265" > /dev/null 2>&1; then
    fail "the cluster answers without its token"; fi
  say "ray job submit -- chexray run /etc/chexray/run.yaml"
  client ray job submit -- chexray run /etc/chexray/run.yaml || fail "ray job submit ended with exit code $?"
  same_numbers
  if client chexray submit --help > /dev/null 2>&1; then
    rm -rf "$STORE/cluster/output"/*
    say "chexray submit /etc/chexray/run.yaml --follow"
    client chexray submit /etc/chexray/run.yaml --address "http://$NET.1:8265" --follow || fail "chexray submit ended with exit code $?"
    same_numbers
  fi
  say "stopping w2 by SIGTERM"
  local stopping=$SECONDS; pod stop --time 60 "$RIG-w2" > /dev/null
  echo "w2: exit code $(pod inspect "$RIG-w2" --format '{{.State.ExitCode}}') after $((SECONDS - stopping)) s"
  echo "cluster: done in $((SECONDS - started)) s"
}

clean() {
  need podman runc ip
  network_down
  pod rm --force --time 0 "$RIG-one" > /dev/null 2>&1 || true
  rm -rf "$STORE/tmp" "$STORE/one" "$STORE/cluster"
}

prune() { need podman runc; pod image prune --force > /dev/null; }

[ $# -gt 0 ] || set -- base build run cluster
for command in "$@"; do
  case $command in
    base | build | run | cluster | clean | prune) ;;
    -h | --help | help) usage; exit 0 ;;
    *) fail "no command '$command'; expected base, build, run, cluster, clean or prune" ;;
  esac
done
open_store
for command in "$@"; do "$command"; done
