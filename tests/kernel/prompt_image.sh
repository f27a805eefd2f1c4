# Makes /run/proof.raw: its boot sector says what a getty says. In 16 bits: `lodsb`, a wait for the port, `out`, until the
# text is over, and then `hlt`.
set -e
cd /run && rm -f proof.raw && truncate -s 16M proof.raw
echo 'start=2048, type=linux' | sfdisk -q -X gpt proof.raw
printf '\061\300\216\330\276\041\174\254\204\300\164\022\210\304\272\375\003\354\250\040\164\373\272\370\003\210\340\356\353\351\364\353\375\r\nproof login: \000' \
  | dd of=proof.raw conv=notrunc status=none
echo made
