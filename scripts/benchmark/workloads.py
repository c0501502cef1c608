"""The workloads: what lies in the bucket before, what is done in the mount, and what issue and docs want of it.

Run as a program, it does one phase of one workload below a directory and prints how long that took: a process of its
own, so that a mount that hangs takes only it along.
"""

import concurrent.futures
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field

KIB, MIB, GIB = 1024, 1024 * 1024, 1024 * 1024 * 1024


@dataclass
class Workload:
    title: str
    phases: list  # of (name, function of (directory, random, data folder), title or None)
    seeds: list = field(default_factory=list)  # what the server's `seed` takes
    writes: bool = False
    # Seconds to reach at 20 ms, by phase; for writes in the default and the write-back mode.
    reach: dict = field(default_factory=dict)
    large: bool = False  # only when asked for


def objects(key, size, count=1, digits=1):
    return {"key": key, "size": size, "count": count, "digits": digits}


def read_all(path, buffer=None):
    """Reads a file to its end; how many bytes it had."""
    buffer = buffer or bytearray(MIB)
    view, total = memoryview(buffer), 0
    fd = os.open(path, os.O_RDONLY)
    try:
        while got := os.readv(fd, [view]):
            total += got
    finally:
        os.close(fd)
    return total


def expect(what, got, wanted):
    if got != wanted:
        raise SystemExit(f"{what}: {got} instead of {wanted}")


def sequential_read(root, _random, _data):
    expect("bytes", read_all(f"{root}/big.bin"), GIB)


def four_at_once(root, _random, _data):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        expect("bytes", sum(pool.map(lambda n: read_all(f"{root}/part{n}.bin"), range(4))), GIB)


def random_reads(count, jobs):
    def run(root, rand, _data):
        offsets = [rand.randrange(GIB // 4096) * 4096 for _ in range(count)]

        def job(mine):
            fd = os.open(f"{root}/big.bin", os.O_RDONLY)
            for offset in mine:
                expect("bytes", len(os.pread(fd, 4096, offset)), 4096)
            os.close(fd)

        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            list(pool.map(job, [offsets[n::jobs] for n in range(jobs)]))

    return run


def write_file(path, size, piece=os.urandom(64) * (MIB // 64)):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        while size:
            size -= os.write(fd, piece[: min(size, MIB)])
    finally:
        os.close(fd)


def sequential_write(root, _random, _data):
    write_file(f"{root}/new.bin", 512 * MIB)


def create(count, jobs):
    def run(root, _random, _data):
        names = [f"{root}/new/f{n:04}" for n in range(count)]
        os.mkdir(f"{root}/new")
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda name: write_file(name, 4 * KIB), names))

    return run


def command(*args, cwd=None):
    """A program's output, by lines."""
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C"}
    done = subprocess.run(args, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(args)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.splitlines()


def list_long(count):
    def run(root, _random, _data):
        expect("lines of ls -l", len(command("ls", "-l", f"{root}/many")), count + 1)

    return run


def find_files(count):
    def run(root, _random, _data):
        expect("lines of find", len(command("find", root, "-type", "f")), count)

    return run


def stat_some(root, rand, _data):
    for n in rand.sample(range(10_000), 200):
        expect("size", os.stat(f"{root}/many/f{n:05}").st_size, 100)


def cat_all(root, _random, _data):
    output = subprocess.run(["sh", "-c", "cat small/* | wc -c"], cwd=root, capture_output=True, check=True).stdout
    expect("bytes", int(output), 200 * 8 * KIB)


def read_thousand(root, _random, _data):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        names = sorted(os.listdir(f"{root}/small"))
        sizes = pool.map(lambda name: read_all(f"{root}/small/{name}", bytearray(16 * KIB)), names)
        expect("bytes", sum(sizes), 1000 * 8 * KIB)


def git_clone(root, _random, data):
    command("git", "clone", "--quiet", f"file://{data}/repository", f"{root}/clone")


def untar(root, _random, data):
    command("tar", "-xf", f"{data}/files.tar", "-C", root)


def append(root, _random, _data):
    for n in range(30):
        with open(f"{root}/log.txt", "a", encoding="ascii") as file:
            file.write(f"line {n:03}\n")


def overwrite(root, _random, _data):
    fd = os.open(f"{root}/file.bin", os.O_RDWR)
    os.pwrite(fd, os.urandom(4096), 32 * MIB)
    os.close(fd)


def rename(old, new):
    def run(root, _random, _data):
        os.rename(f"{root}/{old}", f"{root}/{new}")

    return run


def remove(root, _random, _data):
    command("rm", "-r", f"{root}/folder")


WORKLOADS = {
    "seqread": Workload(
        "sequential read of 1 GiB",
        [("", sequential_read, None), ("again", sequential_read, "the same again, closed and reopened")],
        [objects("big.bin", GIB)], reach={"": 1.6, "again": 0.1}),
    "four": Workload(
        "four files of 256 MiB at once", [("", four_at_once, None)],
        [objects("part{}.bin", 256 * MIB, 4)], reach={"": 1.6}),
    "rand100": Workload(
        "100 random 4 KiB reads, one job", [("", random_reads(100, 1), None)],
        [objects("big.bin", GIB)], reach={"": 2.25}),
    "rand256": Workload(
        "256 random 4 KiB reads, 16 jobs", [("", random_reads(256, 16), None)],
        [objects("big.bin", GIB)], reach={"": 0.45}),
    "seqwrite": Workload(
        "sequential write of 512 MiB", [("", sequential_write, None)], writes=True,
        reach={"": {"default": 0.7, "write-back": 0.7}}),
    "create100": Workload(
        "create 100 files of 4 KiB, one after another", [("", create(100, 1), None)], writes=True,
        reach={"": {"default": 2.3, "write-back": 0.3}}),
    "create500": Workload(
        "create 500 files of 4 KiB, 16 at a time", [("", create(500, 16), None)], writes=True,
        reach={"": {"default": 0.8, "write-back": 0.8}}),
    "ls": Workload(
        "`ls -l` of 10,000",
        [("", list_long(10_000), None), ("again", list_long(10_000), "`ls -l` again")],
        [objects("many/f{}", 100, 10_000, 5)], reach={"": 0.15, "again": 0.035}),
    "find": Workload(
        "`find` over 200 folders of 50", [("", find_files(10_000), None)],
        [objects(f"tree/d{n:03}/f{{}}", 100, 50, 2) for n in range(200)], reach={"": 0.35}),
    "stat": Workload(
        "stat of 200 random names among 10,000", [("", stat_some, None)],
        [objects("many/f{}", 100, 10_000, 5)], reach={"": 0.25}),
    "cat": Workload(
        "cat of 200 files of 8 KiB, one after another", [("", cat_all, None)],
        [objects("small/f{}", 8 * KIB, 200, 4)], reach={"": 0.5}),
    "small": Workload(
        "1,000 files of 8 KiB, 16 readers",
        [("", read_thousand, None), ("again", read_thousand, "read 1,000 again")],
        [objects("small/f{}", 8 * KIB, 1000, 4)], reach={"": 0.9, "again": 0.04}),
    "clone": Workload(
        "git clone of 300 files", [("", git_clone, None)], writes=True, reach={"": {"write-back": 1.2}}),
    "untar": Workload(
        "untar of 200 small files", [("", untar, None)], writes=True, reach={"": {"write-back": 0.5}}),
    "append": Workload(
        "30 appends, opening and closing each", [("", append, None)],
        [objects("log.txt", 100)], writes=True, reach={"": {"default": 0.75}}),
    "overwrite": Workload(
        "overwrite 4 KiB inside 64 MiB", [("", overwrite, None)],
        [objects("file.bin", 64 * MIB)], writes=True, reach={"": {"default": 0.2, "write-back": 0.2}}),
    "rename": Workload(
        "rename of 64 MiB",
        [("", rename("file.bin", "renamed.bin"), None),
         ("back", rename("renamed.bin", "file.bin"), "renamed back, both names known")],
        [objects("file.bin", 64 * MIB)], writes=True, reach={"": {"default": 0.06, "write-back": 0.06}}),
    "renamedir": Workload(
        "rename of a folder of 100 files", [("", rename("folder", "renamed"), None)],
        [objects("folder/f{}", 4 * KIB, 100, 3)], writes=True, reach={"": {"default": 0.25, "write-back": 0.25}}),
    "rm": Workload(
        "`rm -r` of 100 files", [("", remove, None)],
        [objects("folder/f{}", 4 * KIB, 100, 3)], writes=True, reach={"": {"default": 2.3, "write-back": 0.2}}),
    "ls100k": Workload(
        "`ls -l` of 100,000", [("", list_long(100_000), None)],
        [objects("many/f{}", 100, 100_000, 6)], large=True),
    "find1m": Workload(
        "`find` over 1,000,000 in 1,000 folders", [("", find_files(1_000_000), None)],
        [objects(f"tree/d{n:04}/f{{}}", 100, 1000, 3) for n in range(1000)], large=True),
}


def prepare_data(folder):
    """The repository that is cloned and the archive that is unpacked, made once."""
    if os.path.exists(f"{folder}/files.tar"):
        return
    rand = random.Random(1)
    os.makedirs(f"{folder}/repository", exist_ok=True)
    for n in range(300):
        path = f"{folder}/repository/src/m{n % 15:02}/file{n:03}.txt"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(rand.randbytes(rand.randrange(500, 8000)).hex().encode())
    git = ["git", "-C", f"{folder}/repository", "-c", "user.name=bench", "-c", "user.email=bench@example.com"]
    for args in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "files"], ["gc", "--quiet"]):
        subprocess.run([*git, *args], check=True)
    for n in range(200):
        path = f"{folder}/files/d{n % 10}/f{n:03}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(rand.randbytes(4096))
    subprocess.run(["tar", "-cf", f"{folder}/files.tar.new", "-C", folder, "files"], check=True)
    os.rename(f"{folder}/files.tar.new", f"{folder}/files.tar")


def walk(root):
    """Sizes by key, as the mount shows them."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, root)] = os.stat(path).st_size
    return found


def main(name, phase, root, data, seed):
    if name == "walk":
        print(json.dumps(walk(root)))
        return
    run = next(run for known, run, _ in WORKLOADS[name].phases if known == phase)
    rand = random.Random(int(seed))
    started, clock = time.time(), time.perf_counter()
    run(root, rand, data)
    print(json.dumps({"started": started, "seconds": time.perf_counter() - clock}))


if __name__ == "__main__":
    main(*sys.argv[1:])
