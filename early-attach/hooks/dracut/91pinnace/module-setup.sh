#!/bin/bash
# Puts early-attach into the initramfs, with what the agent says of where the logs of its disks lie.
# The directory is to be installed as /usr/lib/dracut/modules.d/91pinnace. See docs/boot.md of Pinnace.

pinnace_plan="${PINNACE_PLAN:-/var/lib/pinnace/agent/early-attach.plan}"
pinnace_program="${PINNACE_EARLY_ATTACH:-/usr/lib/pinnace/early-attach}"

# Without protected disks there is nothing to attach to.
check() {
	[[ -r $pinnace_plan && -x $pinnace_program ]]
}

depends() {
	return 0
}

install() {
	inst_simple "$pinnace_program" /sbin/pinnace-early-attach
	inst_simple "$pinnace_plan" /etc/pinnace/early-attach.plan
	# Before the root is mounted, and, where systemd does that, before it is checked.
	inst_hook pre-mount 10 "$moddir/early-attach.sh"
}
