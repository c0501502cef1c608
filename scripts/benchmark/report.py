"""Results as Markdown tables: medians with their spread, ratios to the best peer, and what reached its goal."""

import statistics
import sys

from .workloads import WORKLOADS

SHORT = {"ListObjectsV2": "list", "ListObjects": "list1", "HeadObject": "head", "GetObject": "get", "PutObject": "put",
         "CopyObject": "copy", "DeleteObject": "delete", "DeleteObjects": "delete-many", "UploadPart": "part",
         "UploadPartCopy": "part-copy", "CreateMultipartUpload": "create", "CompleteMultipartUpload": "complete",
         "AbortMultipartUpload": "abort", "HeadBucket": "head-bucket"}


def seconds(value):
    if value is None:
        return ""
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def amount(count):
    if count is None:
        return ""
    return f"{count / 2**20:.1f}" if count < 100 * 2**20 else f"{count / 2**20:.0f}"


def whole(count):
    return "" if count is None else f"{count:.0f}"


def progress(result):
    said = result.get("error") or seconds(result.get("server", result["close"])) + " s"
    print(f"{result['workload']:10} {result['phase']:6} {result['rtt']:3} ms  run {result['run'] + 1}  "
          f"{result['tool']:22} {said}", file=sys.stderr, flush=True)


def time_of(result):
    """What counts: for a write, when the server had it."""
    return result.get("server", result["close"])


def spread(values):
    if not values:
        return ""
    middle = seconds(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({seconds(min(values))}–{seconds(max(values))})"


def median(results, value):
    values = [value(result) for result in results]
    return statistics.median(values) if values and None not in values else None


def asked(results):
    """Requests by operation, of the median run; nothing where nobody counted them."""
    if not all("requests" in result for result in results):
        return ""
    result = sorted(results, key=time_of)[len(results) // 2]
    counts = sorted(result["requests"].items(), key=lambda item: -item[1])
    return " ".join(f"{count} {SHORT.get(name, name)}" for name, count in counts) or "0"


def is_peer(tool):
    return not (tool.ours or tool.is_floor)


def takes_part(tool, load):
    """Without writes the modes of supafs are the same, and only without them tmpfs tells what the rest costs."""
    return not tool.is_floor if load.writes else tool.mode != "write-back"


def best_peer(times, tools, tool, writes):
    """The time of the best peer of the class: who waits for the server is compared with who waits."""
    peers = [other for other in tools if is_peer(other) and times.get(other.name) is not None]
    if writes and tool.waits:
        peers = [other for other in peers if other.waits]
    return min((times[other.name] for other in peers), default=None)


def overview(results, names, tools, rtt):
    """Medians side by side, and what supafs takes of the time of the best peer of its class."""
    ours = [tool for tool in tools if tool.ours]
    peers = [tool for tool in tools if is_peer(tool)]
    heads = [tool.name for tool in tools] + [f"{tool.name} : best peer" for tool in ours if peers]
    print(f"| workload, s | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for name in names:
        load = WORKLOADS[name]
        for phase, _, title in load.phases:
            _, times = sorted_out(results, tools, name, phase, rtt)
            cells = [seconds(times[tool.name]) or ("failed" if takes_part(tool, load) else "") for tool in tools]
            cells += [ratio(times, tools, tool, load) for tool in ours if peers]
            print(f"| {title or load.title} | {' | '.join(cells)} |")
    print()


def table(results, names, tools, rtt, real):
    print("## On a real stack\n" if real else f"## {rtt} ms\n")
    overview(results, names, tools, rtt)
    print("| workload | tool | time, s | close, s | to best peer | reach | requests | peak | MiB in | MiB out | CPU, s | "
          "memory, MiB |\n|---|---|---|---|---|---|---|---|---|---|---|---|")
    notes = []
    for name in names:
        load = WORKLOADS[name]
        for phase, _, title in load.phases:
            rows(results, load, name, phase, title or load.title, tools, rtt, notes)
    print()
    for note in sorted(set(notes)):
        print(f"- {note}")
    print()


def sorted_out(results, tools, name, phase, rtt, notes=None):
    """The runs of a phase that went well, and their median time, by tool."""
    of = {tool.name: [] for tool in tools}
    for result in results:
        if (result["workload"], result["phase"], result["rtt"]) == (name, phase, rtt):
            if "error" not in result:
                of[result["tool"]].append(result)
            elif notes is not None:
                notes.append(f"{name}, {result['tool']}: {result['error']}")
    return of, {tool: median(those, time_of) for tool, those in of.items()}


def rows(results, load, name, phase, title, tools, rtt, notes):
    of, times = sorted_out(results, tools, name, phase, rtt, notes)
    for tool in tools:
        if not takes_part(tool, load):
            continue
        those, first = of[tool.name], tool is tools[0]
        label = f"{title} | {'**' if tool.ours else ''}{tool.name}{'**' if tool.ours else ''}"
        if not first:
            label = label.replace(title, "", 1)
        if not those:
            print(f"| {label} | failed | | | | | | | | | |")
            continue
        print(f"| {label} | {spread([time_of(r) for r in those])} | "
              f"{spread([r['close'] for r in those]) if load.writes else ''} | {ratio(times, tools, tool, load)} | "
              f"{goal(load, phase, tool, times[tool.name], rtt)} | {asked(those)} | "
              f"{whole(median(those, lambda r: r.get('peak')))} | {amount(median(those, lambda r: r.get('in')))} | "
              f"{amount(median(those, lambda r: r.get('out')))} | {seconds(median(those, lambda r: r['cpu']))} | "
              f"{median(those, lambda r: r['memory']) / 2**20:.0f} |")


def ratio(times, tools, tool, load):
    if not tool.ours or times[tool.name] is None:
        return ""
    best = best_peer(times, tools, tool, load.writes)
    return "" if best is None else f"{times[tool.name] / best:.2f}"


def goal(load, phase, tool, time, rtt):
    """The goal at 20 ms, and whether it is reached."""
    wanted = load.reach.get(phase)
    if isinstance(wanted, dict):
        wanted = wanted.get(tool.mode)
    if rtt != 20 or not tool.ours or wanted is None:
        return ""
    return f"{wanted} {'✓' if time <= wanted else f'✗ ×{time / wanted:.1f}'}"
