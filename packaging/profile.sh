#!/bin/sh
# The command avsimage and its manual on a machine without xCAT, whose own xcat.sh has the same directories.
case ":$PATH:" in
    *:/opt/xcat/bin:*) ;;
    *) [ ! -x /opt/xcat/bin/avsimage ] || PATH=$PATH:/opt/xcat/bin MANPATH=${MANPATH:-}:/opt/xcat/share/man ;;
esac
export PATH MANPATH
