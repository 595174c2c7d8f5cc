#!/bin/sh
# Runs the model of the lease protocol (lease.pml): as the code is, under one kind of fault after the
# other, which must find nothing; then with each of the mistakes that it must find.
# Status 0: all as it must be, or spin or a C compiler is missing (a line says so); 1: not.
here=$(dirname "$0")
for tool in spin gcc; do
  command -v $tool > /dev/null || { echo "skipped: there is no $tool (Debian: apt-get install $tool)"; exit 0; }
done
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
cp "$here/lease.pml" "$work" && cd "$work" || exit 1
status=0
none='-DLAPSES=0 -DLOSSES=0 -DCRASHES=0 -DEMPTIED=0 -DKICKS=0'

# search NAME OPTIONS WHAT: the whole state space; WHAT is SAFETY, or NP for progress
search() {
  spin -a $none $2 lease.pml > spin.log 2>&1 &&
    gcc -O2 -w -D"$3" -DNFAIR=4 -DCOLLAPSE -DMEMLIM=1900 -o pan pan.c || { cat spin.log; exit 1; }
  if [ "$3" = NP ]; then ./pan -l -f -m300000 > out 2>&1; else ./pan -m300000 > out 2>&1; fi
  words=$(sed -n 's/^pan:1: //p' out | sed 's/((.*))* (at/(at/' | head -1)
  states=$(sed -n 's/^ *\([0-9e.+]*\) states, stored.*/\1/p' out)
  seconds=$(sed -n 's/^pan: elapsed time \(.*\) seconds/\1/p' out)
  if [ -z "$words" ] && { ! grep -q 'errors: 0' out || grep -q 'not completed' out; }; then
    words="was cut short: $(grep -m1 -i 'limit\|memory\|depth too' out)"
  fi
  printf '%-34s %9s states %6s s  %s\n' "$1" "$states" "$seconds" "${words:-nothing found}"
}

good() { search "$1" "$2" "${3:-SAFETY}"; [ -z "$words" ] || { status=1; echo '  ^ must hold'; }; }
broken() {
  search "broken: $1" "-D$1 $2" SAFETY
  case $words in *violated*) ;; *) status=1; echo '  ^ must be found' ;; esac
}

good 'a late heartbeat' -DLAPSES=1
good 'an answer lost' -DLOSSES=1
good 'PostgreSQL crashes' -DEMPTIED=1
good 'a worker is killed' -DCRASHES=1
good 'an operator kicks' -DKICKS=1
good 'progress (weak fairness)' -DKICKS=1 NP
broken NO_FENCE -DLAPSES=1
broken LIST_OF_THE_LIVING ''
broken GUESS -DLOSSES=1
broken OPEN_UNDER_OLD_ID -DLAPSES=1
broken LATE_RENEWAL -DLAPSES=1
exit $status
