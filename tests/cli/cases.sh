# Sourced by the shell tests: test cases that report as cmocka does.
#   begin NAME; expect ...; expect ...; finish      (or: skip REASON)
# `run COMMAND...` keeps exit status, stdout and stderr in $status, $out and $err.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0 failed_case= current=

begin() { current=$1 failed_case=; echo "[ RUN      ] $1"; }
complain() { echo "    $*"; failed_case=1; }
finish() {
  if [ -n "$failed_case" ]; then echo "[  FAILED  ] $current"; failures=$((failures + 1)); else echo "[       OK ] $current"; fi
}
skip() { echo "    $1"; echo "[  SKIPPED ] $current"; }
finish_all() { [ "$failures" = 0 ]; exit; }

run() {
  status=0
  "$@" >"$folder/stdout" 2>"$folder/stderr" </dev/null || status=$?
  out=$(cat "$folder/stdout") err=$(cat "$folder/stderr")
}
# start COMMAND...: runs it in the background as $pid. What a shell starts there ignores SIGINT; env sets the signal's default again.
# The files are emptied here, or what comes next reads what the run before has said.
start() {
  : >"$folder/stdout"
  : >"$folder/stderr"
  env --default-signal=INT "$@" >>"$folder/stdout" 2>>"$folder/stderr" </dev/null &
  pid=$!
}
# await PATTERN [FILE]: until a line of what the started run says on stderr (or of FILE) matches, or the run is over.
await() {
  local i=0
  while [ $((i += 1)) -le 6000 ]; do # for any shell: some tests are no bash scripts
    grep -qs "$1" "${2:-$folder/stderr}" && break
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.02
  done
}
# stop SIGNAL: sends it to the started run and waits; $status, $out, $err as `run` keeps them, and $took in microseconds. The run may be over by then.
stop() {
  kill "-$1" "$pid" 2>/dev/null
  local begin=${EPOCHREALTIME/[.,]/}
  status=0
  wait "$pid" 2>/dev/null || status=$?
  took=$((${EPOCHREALTIME/[.,]/} - begin))
  out=$(cat "$folder/stdout") err=$(cat "$folder/stderr")
}
# expect STATUS: the last run's exit status.
expect_status() { [ "$status" = "$1" ] || complain "exit status $status instead of $1; stderr: $err"; }
# expect_in TEXT PART: PART occurs in TEXT.
expect_in() { case $1 in *"$2"*) ;; *) complain "'$2' is missing in: $1" ;; esac; }
expect_not_in() { case $1 in *"$2"*) complain "'$2' should not be in: $1" ;; esac; }
expect_equal() { [ "$1" = "$2" ] || complain "'$1' instead of '$2'"; }
