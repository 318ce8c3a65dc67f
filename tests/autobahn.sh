#!/usr/bin/env bash
# autobahn.sh URL [agent-name]
#
# Runs the Autobahn WebSocket Testsuite (wstest -m fuzzingclient) against a ws:// URL that echoes
# text and binary messages. Prints one line per case that is not OK, then a total.
# Exit: 0 no case FAILED; 1 a case FAILED (or never finished); 2 the suite could not run;
# 3 it cannot be had here: there is no Python 2.7, or it could not be installed.
#
# Env: AUTOBAHN_CACHE  where the Python 2.7 environment is kept (default ~/.cache/autobahn)
#      AUTOBAHN_OUT    where reports go                         (default a fresh mktemp -d)
#      AUTOBAHN_MODE   core  1.* to 10.*, no compression        (301 cases, ~20 s)
#                      quick core + the compression cases of messages up to 8 KiB (385 cases, ~1-2 min)
#                      full  everything                         (517 cases, ~20-40 min; default quick)
#      AUTOBAHN_CASES  comma list of case globs, instead of a mode
#      AUTOBAHN_SKIP   comma list of globs to leave out
#      AUTOBAHN_LIMIT  seconds for each batch of cases          (default 900)
#      AUTOBAHN_ALLOW  comma list of case ids allowed to fail (printed, not counted)
#      PYTHON27        a CPython 2.7                            (default pyenv's, else python2.7)
#      PYTHON3         any CPython 3.7..3.13, makes the venv    (default python3.11, else python3)
set -euo pipefail
URL=${1:?usage: autobahn.sh ws://127.0.0.1:PORT/path [agent]}
AGENT=${2:-server}
CACHE=${AUTOBAHN_CACHE:-$HOME/.cache/autobahn}
OUT=${AUTOBAHN_OUT:-$(mktemp -d)}
PY27=${PYTHON27:-}
if [ -z "$PY27" ]; then
  for c in "$HOME"/.pyenv/versions/2.7.*/bin/python "$(command -v python2.7 || true)"; do
    if [ -n "$c" ] && [ -x "$c" ]; then PY27=$c; break; fi
  done
fi
PY3=${PYTHON3:-$(command -v python3.11 || command -v python3)}
WST=$CACHE/v27/bin/wstest
if ! [ -x "$WST" ]; then
  [ -n "$PY27" ] || { echo "autobahn: no Python 2.7 here (set PYTHON27)"; exit 3; }
  echo "autobahn: installing into $CACHE (under a minute)" >&2
  rm -rf "$CACHE/v27" "$CACHE/boot"; mkdir -p "$CACHE"
  {
    "$PY3" -m venv "$CACHE/boot"
    # the last virtualenv that can make a Python 2.7 environment; it brings pip 20.3.4
    "$CACHE/boot/bin/pip" -q install 'virtualenv==20.21.1'
    "$CACHE/boot/bin/virtualenv" -q -p "$PY27" "$CACHE/v27"
    # pins every dependency itself (autobahn 0.10.9, Twisted 19.10.0, wsaccel 0.6.6, ...)
    "$CACHE/v27/bin/pip" -q install 'autobahntestsuite==25.10.1'
  } >"$CACHE/install.log" 2>&1 || {
    echo "autobahn: install failed, see $CACHE/install.log"; tail -5 "$CACHE/install.log"; rm -rf "$CACHE/v27"; exit 3; }
fi
mkdir -p "$OUT"
export URL AGENT OUT WST
exec "$PY3" - <<'P'
import collections, json, os, re, subprocess, sys, time
e = os.environ
out, agent = e["OUT"], e["AGENT"]
sp = lambda s: [x.strip() for x in s.split(",") if x.strip()]
core = ["%d.*" % i for i in range(1, 11)]
comp = ["%d.%d.*" % (g, n) for g, m in ((12, 5), (13, 7)) for n in range(1, m + 1)]
skip = sp(e.get("AUTOBAHN_SKIP", ""))
mode = e.get("AUTOBAHN_MODE", "quick")
if e.get("AUTOBAHN_CASES"):
    batches = [[c] for c in sp(e["AUTOBAHN_CASES"])]
elif mode == "core":
    batches = [core]
elif mode == "quick":
    # sizes 16 B .. 8 KiB, plus the one 8 KiB message sent as 256-byte fragments
    batches = [core] + [[c[:-1] + str(i) for i in (1, 2, 3, 4, 5, 6, 11)] for c in comp]
else:
    # One by one the groups would include 8, which has no case, and with none wstest does not end.
    batches = [core] + [[c] for c in comp]
limit = float(e.get("AUTOBAHN_LIMIT", "900"))
allow = set(sp(e.get("AUTOBAHN_ALLOW", "")))
BAD = ("FAILED", "WRONG CODE", "UNCLEAN", "FAILED BY CLIENT")
t0 = time.time(); n = collections.Counter(); c = collections.Counter(); bad = []; total = 0
for i, b in enumerate(batches):
    d = os.path.join(out, "b%02d" % i); os.makedirs(d, exist_ok=True)
    spec = {"outdir": d + "/report", "servers": [{"agent": agent, "url": e["URL"]}],
            "cases": b, "exclude-cases": skip, "exclude-agent-cases": {}}
    json.dump(spec, open(d + "/spec.json", "w"))
    t1 = time.time(); late = False
    with open(d + "/wstest.log", "w") as log:
        p = subprocess.Popen([e["WST"], "-m", "fuzzingclient", "-s", d + "/spec.json"], stdout=log, stderr=subprocess.STDOUT)
        try: p.wait(limit)
        except subprocess.TimeoutExpired: late = True; p.kill(); p.wait()
        except BaseException: p.kill(); raise
    ran = list(dict.fromkeys(re.findall(r"Running test case ID (\S+)", open(d + "/wstest.log").read())))
    idx = d + "/report/index.json"
    cases = json.load(open(idx)).get(agent, {}) if os.path.exists(idx) else {}
    if late:
        print("%-8s TIMEOUT       batch %s stopped after %.0fs" % (ran[-1] if ran else "?", ",".join(b), limit)); bad.append("timeout")
    elif not cases and ran == [] and not (skip and p.returncode == 0):
        tail = [x.strip()[:200] for x in open(d + "/wstest.log") if x.strip()]
        print("autobahn: wstest ran nothing: " + (tail[-1] if tail else "no output")); sys.exit(2)
    elif p.returncode == 0 and ran and not cases:
        print("autobahn: %s is not reachable" % e["URL"]); sys.exit(2)
    for k in sorted(cases, key=lambda k: [int(x) for x in k.split(".")]):
        v = cases[k]; x, y = v["behavior"], v["behaviorClose"]; total += 1; n[x] += 1; c[y] += 1
        if x in ("OK", "INFORMATIONAL") and y in ("OK", "INFORMATIONAL"): continue
        why = ""
        try:
            r = json.load(open(d + "/report/" + v["reportfile"]))
            why = r["resultClose"] if x in ("OK", "NON-STRICT") and y in BAD else r["result"]
        except Exception: pass
        print("%-8s %-13s close %-13s code %-5s %s%s" % (k, x, y, v.get("remoteCloseCode"), re.sub("<[^>]+>", "", why)[:110], "  (allowed)" if k in allow else ""))
        if (x in BAD or y in BAD) and k not in allow: bad.append(k)
    sys.stdout.flush()
    if len(batches) > 1: print("# %s: %d cases, %.0fs" % (b[0] if len(b) == 1 else b[0] + " .. " + b[-1], len(cases), time.time() - t1), file=sys.stderr, flush=True)
if not total and not bad: print("autobahn: no case ran"); sys.exit(2)
print("TOTAL %d cases in %.0fs: %s | close: %s | reports %s/b*/report/index.html" % (
    total, time.time() - t0, ", ".join("%s %d" % x for x in sorted(n.items())), ", ".join("%s %d" % x for x in sorted(c.items())), out))
sys.exit(1 if bad else 0)
P
