#!/bin/sh
# Attaches the tracking programs before the root file system is mounted, which may write. Whatever
# comes of it, the machine starts: what is not proven is compared later.

[ -x /sbin/pinnace-early-attach ] && /sbin/pinnace-early-attach
:
