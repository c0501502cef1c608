"""What the mounts are measured against: the stand-in, or a real stack. Both fill buckets and tell what is in them;
only the stand-in adds latency and counts requests."""

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from . import s3


class Standin:
    """tests/standin, in memory, obeying orders on its standard input."""

    counts = True

    def __init__(self, binary, log=0):
        # As the hosted product, but without the MD5 of large bodies: what is to be measured is the mounts.
        self.process = subprocess.Popen(
            [binary, "--control", "--backend", "s3", "--no-md5", "--log-capacity", str(log)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        variables = {}
        while "BOB_TOKEN" not in variables:
            line = self.process.stdout.readline()
            if not line:
                raise SystemExit("the stand-in did not start")
            name, value = line.removeprefix("export ").strip().split("=", 1)
            variables[name] = value.strip("'")
        self.endpoint = variables["SUPABASE_S3_ENDPOINT"]
        self.plain_endpoint = variables["SUPABASE_URL"]
        self.region = "us-east-1"
        self.key = variables["SUPABASE_S3_ACCESS_KEY_ID"]
        self.secret = variables["SUPABASE_S3_SECRET_ACCESS_KEY"]

    def order(self, do, **fields):
        self.process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(f"{do}: {answer['error']}")
        return answer

    def fill(self, bucket, seeds):
        self.order("reset", bucket=bucket)
        for seed in seeds:
            self.order("seed", bucket=bucket, **seed)

    def objects(self, bucket):
        return self.order("objects", bucket=bucket)["objects"]

    def latency(self, milliseconds):
        self.order("latency", ms=milliseconds)

    def clear(self):
        self.order("clear")

    def stats(self):
        return self.order("stats")

    def log(self):
        return self.order("log")

    def settled(self, bucket, _walk, since, quiet, limit):
        """Waits until nothing was asked for `quiet` seconds; when the last change was, if there was any."""
        until, before, calm_since = time.time() + limit, None, since
        while time.time() < until:
            stats = self.stats()
            if stats["in_flight"] or stats != before:
                before, calm_since = stats, time.time()
            elif time.time() - calm_since > quiet:
                return stats["last_change"]
            time.sleep(0.02)
        raise TimeoutError(f"changes go on after {limit:.0f} s")

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Real:
    """The stack that the SUPAFS_TEST_* variables name."""

    counts = False

    def __init__(self):
        def setting(name):
            value = os.environ.get(f"SUPAFS_TEST_{name}")
            return value or exit(f"--real needs SUPAFS_TEST_{name}; see README, Tests")

        self.endpoint = self.plain_endpoint = setting("ENDPOINT")
        self.region = setting("REGION")
        self.key, self.secret = setting("ACCESS_KEY_ID"), setting("SECRET_ACCESS_KEY")
        self.client = s3.Client(self.endpoint, self.region, self.key, self.secret)
        self.piece = os.urandom(s3.PART)

    def fill(self, bucket, seeds):
        self.client.make_bucket(bucket)
        wanted = {}
        for seed in seeds:
            for number in range(seed["count"]):
                wanted[seed["key"].replace("{}", f"{number:0{seed['digits']}}")] = seed["size"]
        there = self.client.list(bucket)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: self.client.delete(bucket, key), there.keys() - wanted.keys()))
            missing = [(key, size) for key, size in wanted.items() if there.get(key) != size]
            list(pool.map(lambda item: self.client.put(bucket, *item, self.piece), missing))

    def objects(self, bucket):
        return self.client.list(bucket)

    def latency(self, milliseconds):
        if milliseconds:
            raise SystemExit("a real stack has the latency it has: leave --rtt out")

    def clear(self):
        pass

    def log(self):
        return []

    def settled(self, bucket, walk, since, quiet, limit):
        """Waits until the bucket holds what the mount shows, and nothing in it has changed for `quiet` seconds; when it
        last changed. What was there at the first look, which is as soon as the work is done, counts as done then."""
        # It may hash for seconds before anything changes.
        quiet += 4
        until, changed = time.time() + limit, since
        before, wanted = self.client.versions(bucket), walk()
        while time.time() < until:
            asked, now = time.time(), self.client.versions(bucket)
            if now != before:
                before, changed = now, asked
            if asked - changed > quiet and shown({key: size for key, (size, *_) in now.items()}) == wanted:
                return changed
            time.sleep(0.05)
        raise TimeoutError(f"the bucket differs from the mount, or changes, after {limit:.0f} s")

    def close(self):
        pass


def shown(objects):
    """What of a bucket's objects is a file: the markers that each tool makes for folders are none."""
    marker = ("/", "/.emptyFolderPlaceholder")
    return {key: size for key, size in objects.items() if not key.endswith(marker)}
