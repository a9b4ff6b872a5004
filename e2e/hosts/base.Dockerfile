# The base of the hosts where images can be pulled: what ./images.py otherwise makes of this machine's distribution.
FROM python:3.12-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends systemd systemd-sysv iproute2 iptables curl sqlite3 \
 && rm -rf /var/lib/apt/lists/*
