#!/usr/bin/env bash
# Make this container a host for `deepspeed --hostfile`: an ssh server of the image's user, port 2222.
#   docker/sshd.sh            wait for logins
#   docker/sshd.sh COMMAND    run COMMAND beside the server and exit with its code
# All hosts share ~/.ssh, a volume or a mounted folder; the first one writes the keys into it.
set -euo pipefail
keys=$HOME/.ssh

# The host key is the same on all hosts, so that no login asks a question.
write_keys() {
    if [ -e "$keys/authorized_keys" ] || [ -e "$keys/id_ed25519" ]; then
        echo "error: $keys has keys that this script did not write; mount an empty folder" >&2
        exit 2
    fi
    ssh-keygen -q -t ed25519 -N '' -f "$keys/id_ed25519"
    ssh-keygen -q -t ed25519 -N '' -f "$keys/host_key"
    cp "$keys/id_ed25519.pub" "$keys/authorized_keys"
    printf 'bigbird %s\n' "$(cat "$keys/host_key.pub")" >"$keys/known_hosts"
    printf '%s\n' 'Host *' '    Port 2222' '    HostKeyAlias bigbird' \
        '    StrictHostKeyChecking yes' '    LogLevel ERROR' >"$keys/config"
}
(
    flock 9
    [ -s "$keys/config" ] || write_keys
) 9>"$keys/lock"

# A login starts with sshd's own PATH, not with that of the image.
server=(/usr/sbin/sshd -D -e -f /dev/null -p 2222 -h "$keys/host_key" -o UsePAM=no
    -o PidFile=none -o PasswordAuthentication=no -o "SetEnv=PATH=$PATH")
[ $# -gt 0 ] || exec "${server[@]}"

"${server[@]}" &
server_id=$!
"$@" &
command_id=$!
trap 'kill -TERM $command_id 2>/dev/null || true' TERM INT
code=0
wait $command_id || code=$?
while kill -0 $command_id 2>/dev/null; do # a signal ended the wait
    code=0
    wait $command_id || code=$?
done
# The deepspeed runner dies on SIGTERM before its ranks have saved. The container ends with this
# process, so wait for them: `python -u SCRIPT`.
while pgrep -f '^[^ ]*python[^ ]* -u [^ ]*\.py' >/dev/null; do sleep 1; done
kill $server_id
exit $code
