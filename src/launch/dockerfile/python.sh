# Finds the wanted Python in a base image, or installs it with apt; its path goes into /etc/launch-agent/python. The
# agent reads the lines that begin with `launch-agent: `.
set -u
fits() { "$1" -c "import sys, venv, ensurepip; sys.exit('$wanted' not in ('', '%d.%d' % sys.version_info[:2]))" >/dev/null 2>&1; }
choose() { for name in "python$wanted" python3 python; do if fits "$name"; then command -v "$name" >/etc/launch-agent/python; return; fi; done; return 1; }
mkdir -p /etc/launch-agent
choose && exit 0
found=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
if ! command -v apt-get >/dev/null; then echo "launch-agent: no apt-get, found ${found:-none}"; exit 1; fi
apt-get $apt update || { echo "launch-agent: apt-get failed"; exit 1; }
package="python${wanted:-3}"
if [ -z "$(apt-cache madison "$package")" ]; then
  offered=$(apt-cache madison python3 | head -n 1 | cut -d '|' -f 2 | tr -d ' ' | cut -d . -f 1,2)
  echo "launch-agent: no python, found ${offered:-${found:-none}}"
  exit 1
fi
DEBIAN_FRONTEND=noninteractive apt-get $apt install -y --no-install-recommends "$package" "$package-venv" || { echo "launch-agent: apt-get failed"; exit 1; }
choose || { echo "launch-agent: no python, found ${found:-none}"; exit 1; }
