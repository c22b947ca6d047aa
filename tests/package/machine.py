"""A throw-away copy of this machine, to install packages in: an overlay over the whole file system, with processes,
mounts and network of its own. What is done in it is gone with it, and its port 6432 is nobody else's.

Needs root, or a sudo that asks nothing.
"""

import os
import pathlib
import subprocess

from harness import PATIENCE, wait_until

# The holder is the first process of the namespaces, so that whatever runs in them ends with it and it is told of daemons
# that end (hence the shell, which takes notice). /run and /tmp start empty: sockets and locks of the real machine are
# none of its business.
HOLDER = """
set -e
mount --make-rprivate /
mount -t tmpfs none {home}
mkdir {home}/upper {home}/work {home}/root
mount -t overlay overlay -o lowerdir=/,upperdir={home}/upper,workdir={home}/work {home}/root
mount -t proc proc {home}/root/proc
mount --rbind /dev {home}/root/dev
mount -t tmpfs none {home}/root/run
mount -t tmpfs -o mode=1777 none {home}/root/tmp
ip link set lo up
echo ready
sleep infinity &
wait $!
"""


def root_prefix():
    """What to put before a command that needs root; None if there is no way."""
    if os.getuid() == 0:
        return []
    works = subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    return ["sudo", "-n"] if works else None


class NoMachine(Exception):
    """The system lets nobody make one, for instance inside a container."""


class Machine:
    """`home` is an empty folder; what is under it is seen by this machine's processes only."""

    def __init__(self, home):
        self.home = home
        self._prefix = root_prefix()
        self._spawned = []
        command = ["unshare", "--mount", "--net", "--pid", "--fork", "bash", "-c", HOLDER.format(home=home)]
        self._unshare = subprocess.Popen([*self._prefix, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                         stderr=subprocess.STDOUT, text=True)
        line = self._unshare.stdout.readline()
        if line != "ready\n":
            raise NoMachine(f"no namespaces or no overlay here: {line}{self._unshare.stdout.read()}")
        self._holder = self._first_child()
        # A package of an earlier run, or of the user's, is no part of the tests; nor is a ban on starting services. The
        # index of manual pages would be made anew at each step.
        self.run("rm -f /usr/sbin/policy-rc.d /var/lib/man-db/auto-update; "
                 "! dpkg-query --show pgweir || dpkg --purge pgweir")

    def _first_child(self):
        """The process in the namespaces; with sudo there is one more between."""
        pid = self._unshare.pid
        while True:
            children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if not children:
                return pid
            pid = int(children[0])

    def enter(self, script, user=None):
        """The command line that runs a shell script in the machine, as root or as another user."""
        whole = ["nsenter", "--target", str(self._holder), "--mount", "--net", "--pid", "chroot", f"{self.home}/root"]
        if user:
            whole += ["setpriv", "--reuid", user, "--regid", user, "--init-groups"]
        return [*self._prefix, *whole, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8",
                "DEBIAN_FRONTEND=noninteractive", "sh", "-c", script]

    def run(self, script, user=None, code=0):
        """Runs a shell script, checks its exit code and returns what it printed."""
        done = subprocess.run(self.enter(script, user), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=60 * PATIENCE, check=False)
        assert done.returncode == code, f"{script}: exit code {done.returncode}\n{done.stdout}"
        return done.stdout

    def spawn(self, script, user=None):
        """Starts a shell script and leaves it running."""
        process = subprocess.Popen(self.enter(script, user), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        self._spawned.append(process)

    def succeeds(self, script, user=None):
        return subprocess.run(self.enter(script, user), stdin=subprocess.DEVNULL, capture_output=True,
                              check=False).returncode == 0

    def wait_for(self, script, user=None, seconds=10):
        """Repeats a shell script until it succeeds."""
        wait_until(lambda: self.succeeds(script, user), seconds, script)

    def read(self, path):
        return self.run(f"cat '{path}'")

    def write(self, path, text):
        subprocess.run(self.enter(f"cat > '{path}'"), input=text, text=True, check=True, timeout=20)

    def copy_in(self, file, path):
        with open(file, "rb") as source:
            subprocess.run(self.enter(f"cat > '{path}'"), stdin=source, check=True, timeout=20)

    def status(self, path):
        """Mode, owner and group, as "640 root postgres"."""
        return self.run(f"stat -c '%a %U %G' '{path}'").strip()

    def exists(self, path):
        return self.succeeds(f"test -e '{path}'")

    def stop(self):
        subprocess.run([*self._prefix, "kill", "-KILL", str(self._holder)], check=True)
        for process in [self._unshare, *self._spawned]:
            process.wait(20)
        self._unshare.stdout.close()
