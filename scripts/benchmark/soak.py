"""scripts/soak: mixed load with faults for a long time, and what is left of it at rest."""

import hashlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from . import mounts
from .server import Standin, shown

KIB, MIB = 1024, 1024 * 1024
BIG = 48 * MIB

# What passes by itself when a request is tried again. None of it may be seen through the mount.
FAULTS = [
    "status:503:SlowDown,times=3", "status:500:InternalError,times=2", "status:544:DatabaseTimeout,times=2",
    "reset,times=2", "latency:300,times=20", "truncate:1000,op=GetObject,times=2", "lost,op=PutObject,times=1",
    "reset-body:1000,op=PutObject,times=2", "slow:2000000,op=GetObject,times=3", "late-status:500,op=UploadPart,times=1",
]


class Load:
    """Workers on one mount. Each has a folder of its own and remembers what is in it."""

    def __init__(self, root, seed, stop):
        self.root, self.stop = root, stop
        self.random = random.Random(seed)
        self.failures, self.latencies, self.operations = [], [], 0
        self.files = {}
        works = [self.writer, self.writer, self.reader, self.lister, self.big_writer]
        self.threads = [threading.Thread(target=self.work, args=(number, work), daemon=True)
                        for number, work in enumerate(works)]

    def work(self, number, work):
        rand = random.Random(self.random.random())
        folder = f"{self.root}/worker{number}"
        try:
            os.mkdir(folder)
            files = {}
            while not self.stop.is_set() and not self.failures:
                begun = time.perf_counter()
                work(folder, files, rand)
                self.latencies.append((time.time(), work.__name__, time.perf_counter() - begun))
                self.operations += 1
            self.files |= {os.path.relpath(path, self.root): digest for path, digest in files.items()}
        except Exception as error:  # whatever it is, the run has failed
            line = traceback.extract_tb(error.__traceback__)[1].lineno
            self.failures.append(f"{work.__name__} in {folder}, line {line}: {error!r} {error}")

    def check(self, path, wanted):
        with open(path, "rb") as file:
            got = hashlib.sha256(file.read()).hexdigest()
        if got != wanted:
            raise AssertionError(f"{path} holds something else than was written")

    def writer(self, folder, files, rand):
        """Creates, replaces, appends to, renames, reads and removes small files."""
        path = f"{folder}/f{rand.randrange(60)}"
        choice = rand.random()
        if path not in files or choice < 0.4:
            data = rand.randbytes(rand.choice((0, 100, 4 * KIB, 70 * KIB)))
            with open(path, "wb") as file:
                file.write(data)
            files[path] = hashlib.sha256(data).hexdigest()
        elif choice < 0.55:
            with open(path, "rb") as file:
                data = file.read()
            more = rand.randbytes(500)
            with open(path, "ab") as file:
                file.write(more)
            files[path] = hashlib.sha256(data + more).hexdigest()
        elif choice < 0.65:
            to = f"{folder}/f{rand.randrange(60)}"
            os.rename(path, to)
            files[to] = files.pop(path)
        elif choice < 0.75:
            os.unlink(path)
            del files[path]
        elif choice < 0.8:
            sub = f"{folder}/sub"
            os.mkdir(sub)
            with open(f"{sub}/x", "wb") as file:
                file.write(b"x")
            os.chmod(sub, 0o700)
            os.unlink(f"{sub}/x")
            os.rmdir(sub)
        else:
            self.check(path, files[path])

    def reader(self, _folder, _files, rand):
        """Reads here and there in large objects, and whole small ones."""
        fd = os.open(f"{self.root}/seed/big{rand.randrange(4)}.bin", os.O_RDONLY)
        try:
            for _ in range(20):
                at = rand.randrange(BIG - 256 * KIB)
                want = rand.choice((4 * KIB, 256 * KIB))
                if len(os.pread(fd, want, at)) != want:
                    raise AssertionError("a short read")
        finally:
            os.close(fd)
        if len(open(f"{self.root}/seed/small/f{rand.randrange(2000):04}", "rb").read()) != 8 * KIB:
            raise AssertionError("a small file is short")
        time.sleep(0.01)

    def lister(self, _folder, _files, _rand):
        """Lists what others change, and what nobody does."""
        for _ in os.walk(self.root):
            pass
        if len(os.listdir(f"{self.root}/seed/small")) != 2000:
            raise AssertionError("a listing is not complete")
        time.sleep(0.2)

    def big_writer(self, folder, files, rand):
        """Writes a file in parts, changes a piece of it, reads it back."""
        path = f"{folder}/big"
        data = bytearray(rand.randbytes(256 * KIB) * (20 * 4))
        with open(path, "wb") as file:
            file.write(data)
        data[7 * MIB:7 * MIB + 5] = b"12345"
        with open(path, "r+b") as file:
            file.seek(7 * MIB)
            file.write(b"12345")
        files[path] = hashlib.sha256(data).hexdigest()
        self.check(path, files[path])
        time.sleep(0.5)


class Watched:
    """A mount, its load, and what its daemon uses as time goes by."""

    def __init__(self, tool, server, bucket, folder, stop):
        self.tool, self.server, self.bucket = tool, server, bucket
        server.fill(bucket, [{"key": "seed/big{}.bin", "size": BIG, "count": 4, "digits": 1},
                             {"key": "seed/small/f{}", "size": 8 * KIB, "count": 2000, "digits": 4}])
        self.place = mounts.Place(f"{folder}/{bucket}")
        self.mount = mounts.Mount(tool, self.place, server, bucket)
        self.mount.__enter__()
        self.load = Load(self.place.mountpoint, hash(bucket) % 1000, stop)
        self.samples = []

    def sample(self):
        pid = self.mount.process.pid
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            fields = dict(line.split(":", 1) for line in status)
        self.samples.append({"rss": int(fields["VmRSS"].split()[0]) * KIB, "threads": int(fields["Threads"]),
                             "fds": len(os.listdir(f"/proc/{pid}/fd")), "tasks": self.mount.counters()["tasks"]})

    def at_rest(self, first=None, limit=90):
        """The sample when nothing is under way any more, and what was there at `first` has come down to that: threads
        that wait for work, and connections, stay for a while."""
        until = time.time() + limit
        while True:
            counters = self.mount.counters()
            busy = {name: counters[name] for name in ("open_handles", "drafts", "waiting", "spool_bytes")
                    if counters[name]}
            self.sample()
            sample = self.samples.pop()
            for name in ("fds", "threads", "tasks"):
                if first and sample[name] > first[name] + 8:
                    busy[name] = f"{sample[name]}, {first[name]} at first"
            if not busy:
                self.samples.append(sample)
                return sample
            if time.time() > until:
                raise AssertionError(f"{self.tool.name}: at rest there are still {busy}")
            time.sleep(0.2)

    def judge(self):
        """Whether memory has grown."""
        wrong = []
        third = len(self.samples) // 3
        middle, end = (max(s["rss"] for s in part) for part in (self.samples[:2 * third], self.samples[2 * third:]))
        if end > middle * 1.1 + 16 * MIB:
            wrong.append(f"memory {middle // MIB} MiB at most in the first two thirds, {end // MIB} in the last")
        return [f"{self.tool.name}: {text}" for text in wrong]


def quantiles(load, since, until):
    """Median and 99th percentile of each kind of work."""
    kinds = {}
    for at, kind, took in load.latencies:
        if since <= at < until:
            kinds.setdefault(kind, []).append(took)
    return "  ".join(f"{kind} {statistics.median(t) * 1000:.0f}/{sorted(t)[int(len(t) * 0.99)] * 1000:.0f} ms"
                     for kind, t in sorted(kinds.items()))


def compare(watched, problems):
    """The bucket holds what the workers remember: read through a mount that knows nothing."""
    stored = {key for key in shown(watched.server.objects(watched.bucket)) if not key.startswith("seed/")}
    wanted = watched.load.files
    if stored != wanted.keys():
        problems.append(f"{watched.tool.name}: in the bucket, not written or not removed: {sorted(stored ^ wanted.keys())[:5]}")
    place = mounts.Place(f"{watched.place.root}-again")
    with mounts.Mount(mounts.Tool("supafs", mounts.supafs("--read-only")), place, watched.server, watched.bucket):
        for key in stored & wanted.keys():
            with open(f"{place.mountpoint}/{key}", "rb") as file:
                if hashlib.sha256(file.read()).hexdigest() != wanted[key]:
                    problems.append(f"{watched.tool.name}: {key} holds something else than was written")
    mounts.discard(place)


def run(minutes, folder, server):
    problems = []
    stop = threading.Event()

    small = ("--cache-memory", "64MiB")
    tools = [mounts.Tool("supafs", mounts.supafs(*small), ours=True),
             mounts.Tool("supafs --write-back", mounts.supafs(*small, "--write-back"), waits=False, ours=True)]
    all_watched = [Watched(tool, server, f"soak{number}", folder, stop) for number, tool in enumerate(tools)]
    try:
        server.latency(5)
        first = [watched.at_rest() for watched in all_watched]
        begun, rand = time.time(), random.Random(1)
        ends = begun + minutes * 60
        for thread in [thread for watched in all_watched for thread in watched.load.threads]:
            thread.start()
        while time.time() < ends and not any(watched.load.failures for watched in all_watched):
            spec = rand.choice(FAULTS)
            server.order("fault", spec=spec)
            time.sleep(min(3, max(0.5, minutes / 10)))
            server.order("clear_faults")
            for watched in all_watched:
                watched.sample()
        stop.set()
        for watched in all_watched:
            for thread in watched.load.threads:
                thread.join(120)
                if thread.is_alive():
                    problems.append(f"{watched.tool.name}: a worker hangs")
        for watched, at_first in zip(all_watched, first):
            problems += [f"{watched.tool.name}: {text}" for text in watched.load.failures]
            watched.at_rest(at_first)
            problems += watched.judge()
            rss = [sample["rss"] for sample in watched.samples]
            print(f"{watched.tool.name}: {watched.load.operations} operations, memory {max(rss) // MIB} MiB at most, "
                  f"{rss[-1] // MIB} in the end; descriptors {at_first['fds']} and {watched.samples[-1]['fds']}, "
                  f"tasks {at_first['tasks']} and {watched.samples[-1]['tasks']}")
            half = begun + (ends - begun) / 2
            print(f"  median/99th percentile, first half:  {quantiles(watched.load, begun, half)}")
            print(f"                          second half: {quantiles(watched.load, half, time.time())}")
    except (AssertionError, TimeoutError) as error:
        problems.append(str(error))
    finally:
        server.order("clear_faults")
        stop.set()
        for watched in all_watched:
            watched.mount.__exit__(None, None, None)
            if watched.mount.process.returncode:
                problems.append(f"{watched.tool.name}: the daemon ended with {watched.mount.process.returncode}")
            with open(f"{watched.place.root}/output", encoding="utf-8", errors="replace") as log:
                if "panicked" in (text := log.read()):
                    problems.append(f"{watched.tool.name} panicked: {text[text.index('panicked') - 200:][:600]}")
    server.latency(0)
    if not problems:
        for watched in all_watched:
            compare(watched, problems)
    return problems


def main():
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    folder = tempfile.mkdtemp(prefix="supafs-soak-")
    server = Standin(os.environ["STANDIN"])
    try:
        problems = run(minutes, folder, server)
    finally:
        server.close()
    for problem in problems:
        print(f"FAILED: {problem}")
    if problems:
        sys.exit(f"kept: {folder}")
    subprocess.run(["rm", "-rf", "--one-file-system", folder], check=True)
    print(f"soak: {minutes:g} minutes, nothing lost, nothing left")


main()
