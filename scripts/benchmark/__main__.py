"""The flags, and the runs: every workload with every tool in turns, each on a mount of its own with nothing cached."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time

from . import mounts, report, workloads
from .server import Real, Standin, shown


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Compares supafs with other mounts of S3 buckets.")
    parser.add_argument("--rtt", default="0,20", help="milliseconds added to each request (0,20)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each workload with each tool (3)")
    parser.add_argument("--only", default="", help="workloads, by their names or beginnings of them")
    parser.add_argument("--list", action="store_true", help="print the workloads' names")
    parser.add_argument("--large", action="store_true", help="also those with 100,000 and 1,000,000 objects")
    parser.add_argument("--peers", default="rclone,s3fs,mount-s3,geesefs,tmpfs", help="who takes part, or `none`")
    parser.add_argument("--modes", default="default,write-back", help="how supafs takes part")
    parser.add_argument("--tools", default="", help="only the tools with these names")
    parser.add_argument("--real", action="store_true", help="on the stack of the SUPAFS_TEST_* variables")
    parser.add_argument("--limit", type=float, default=120, help="seconds a workload may take (120)")
    parser.add_argument("--json", metavar="FILE", help="write every run there")
    parser.add_argument("--trace", metavar="DIR", help="write the request log of every run there")
    return parser.parse_args()


def split(text):
    return [part for part in text.split(",") if part]


def chosen_workloads(args):
    names = split(args.only)
    known = workloads.WORKLOADS
    unknown = [name for name in names if not any(one.startswith(name) for one in known)]
    if unknown:
        sys.exit(f"no workload {', '.join(unknown)}; there are {', '.join(known)}")

    def wanted(name):
        exact = name in names
        begins = any(name.startswith(one) and one not in known for one in names)
        return exact or begins or (not names and (args.large or not known[name].large))

    return [name for name in known if wanted(name)]


class Bench:
    def __init__(self, args, server, cache):
        self.args, self.server, self.cache = args, server, cache
        self.data = f"{cache}/data"
        self.filled = {}

    def bucket(self, name):
        """A bucket in the state the workload begins with."""
        load = workloads.WORKLOADS[name]
        bucket = f"bench-{name}"
        if load.writes or bucket not in self.filled:
            self.server.fill(bucket, load.seeds)
            self.filled[bucket] = True
        return bucket

    def child(self, *args):
        """One phase, or a walk, in a process of its own."""
        try:
            done = subprocess.run([sys.executable, "-B", workloads.__file__, *args], capture_output=True,
                                  timeout=self.args.limit, text=True, check=False)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"takes more than {self.args.limit:.0f} s") from None
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "failed")
        return json.loads(done.stdout)

    def run(self, name, tool, rtt, number):
        """The results of one run, phase by phase."""
        load = workloads.WORKLOADS[name]
        results = []
        bucket = self.bucket(name)
        place = mounts.Place(tempfile.mkdtemp(prefix="run-", dir=self.cache))
        base = {"workload": name, "tool": tool.name, "rtt": rtt, "run": number}
        try:
            self.server.latency(rtt)
            with mounts.mounted(tool, place, self.server, bucket, load.seeds) as mount:
                for phase, _, _ in load.phases:
                    result = base | {"phase": phase}
                    results.append(result)
                    self.phase(load, name, phase, number, mount, bucket, result)
        except (RuntimeError, TimeoutError, OSError) as error:
            if not results:
                results.append(base | {"phase": load.phases[0][0]})
            results[-1]["error"] = str(error)
        finally:
            self.server.latency(0)
            mounts.discard(place)
        return results

    def phase(self, load, name, phase, number, mount, bucket, result):
        root = mount.place.mountpoint
        self.server.clear()
        before = {} if self.server.counts else mount.counters()
        mount.forget_peak()
        used = mount.used()
        timed = self.child(name, phase, root, self.data, str(number))
        result["close"] = timed["seconds"]
        if load.writes:
            self.settle(mount, bucket, timed, (used, before), result)
        else:
            self.measure(mount, (used, before), result)
        if self.args.trace:
            os.makedirs(self.args.trace, exist_ok=True)
            file = "-".join(filter(None, [name, phase, mount.tool.name.replace(" ", ""), str(result["rtt"]), str(number)]))
            with open(f"{self.args.trace}/{file}.jsonl", "w", encoding="utf-8") as out:
                out.writelines(json.dumps(entry) + "\n" for entry in self.server.log())

    def measure(self, mount, since, result):
        """What was asked, moved and used until now. Where the server does not count, supafs does, and peers do not."""
        used, before = since
        result |= {"cpu": mount.used() - used, "memory": mount.peak()}
        if self.server.counts:
            stats = self.server.stats()
            result |= {"requests": stats["requests"], "peak": stats["peak"], "in": stats["bytes_in"],
                       "out": stats["bytes_out"]}
        elif before is not None:
            now = mount.counters()
            asked = {name: count - before["requests"][name] for name, count in now["requests"].items()}
            result |= {"requests": {name: count for name, count in asked.items() if count},
                       "in": now["bytes_sent"] - before["bytes_sent"],
                       "out": now["bytes_received"] - before["bytes_received"]}

    def settle(self, mount, bucket, timed, since, result):
        """Waits until the bucket holds what the mount shows: then the write is done."""
        def walk():
            return self.child("walk", "", mount.place.mountpoint, "", "0")

        until = time.time() + self.args.limit
        while True:
            done = self.server.settled(bucket, walk, timed["started"] + timed["seconds"], mount.tool.delay + 1,
                                       max(1, until - time.time()))
            self.measure(mount, since, result)
            mounted, stored = walk(), shown(self.server.objects(bucket))
            if done and mounted == stored:
                result["server"] = max(timed["seconds"], done - timed["started"])
                return
            if time.time() > until and mounted == stored:
                raise TimeoutError("nothing was changed on the server")
            if time.time() > until:
                wrong = sorted({key for key, _ in mounted.items() ^ stored.items()})
                raise RuntimeError(f"bucket and mount differ in {len(wrong)} files, e.g. {wrong[0]}: "
                                   f"{stored.get(wrong[0])} and {mounted.get(wrong[0])} bytes")
            # It may be busy with something before it asks for anything.
            time.sleep(0.5)


def fsync_time(folder):
    """Median seconds of writing and syncing 4 KiB."""
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(30):
            file.write(os.urandom(4096))
            file.flush()
            begun = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begun)
    return sorted(times)[len(times) // 2]


def main():
    args = arguments()
    names = chosen_workloads(args)
    if args.list:
        for name in workloads.WORKLOADS:
            print(f"{name:12}{workloads.WORKLOADS[name].title}")
        return
    cache = os.environ.get("SUPAFS_BENCH_CACHE") or os.path.expanduser("~/.cache/supafs-bench")
    os.makedirs(cache, exist_ok=True)
    workloads.prepare_data(f"{cache}/data")
    tools = mounts.tools(split(args.peers), split(args.modes), cache, args.real)
    if args.tools:
        tools = [tool for tool in tools if tool.name in split(args.tools)]
    server = Real() if args.real else Standin(os.environ["STANDIN"], 1_000_000 if args.trace else 0)
    rtts = [0] if args.real else [int(rtt) for rtt in split(args.rtt)]
    bench = Bench(args, server, cache)
    results = []
    try:
        for rtt in rtts:
            for name in names:
                for number in range(args.runs):
                    for tool in tools:
                        if not report.takes_part(tool, workloads.WORKLOADS[name]):
                            continue
                        one = bench.run(name, tool, rtt, number)
                        results += one
                        for result in one:
                            report.progress(result)
    except KeyboardInterrupt:
        print("interrupted: what was measured so far", file=sys.stderr)
    finally:
        server.close()
        if args.json:
            with open(args.json, "w", encoding="utf-8") as file:
                json.dump(results, file, indent=1)
    print(f"{os.cpu_count()} cores, Linux {platform.release()}, "
          f"{args.runs} runs; the disk syncs 4 KiB in {fsync_time(cache) * 1000:.1f} ms (median)\n")
    for rtt in rtts:
        report.table(results, names, tools, rtt, args.real)


main()
