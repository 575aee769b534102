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
# expect STATUS: the last run's exit status.
expect_status() { [ "$status" = "$1" ] || complain "exit status $status instead of $1; stderr: $err"; }
# expect_in TEXT PART: PART occurs in TEXT.
expect_in() { case $1 in *"$2"*) ;; *) complain "'$2' is missing in: $1" ;; esac; }
expect_not_in() { case $1 in *"$2"*) complain "'$2' should not be in: $1" ;; esac; }
expect_equal() { [ "$1" = "$2" ] || complain "'$1' instead of '$2'"; }
