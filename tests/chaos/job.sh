# A job: `sh -c "$(cat job.sh)" job NUMBER CODE LINES PAUSE REPORTS`. It prints so many numbered lines to both streams, with
# a pause after each, and exits with the code. With REPORTS=yes it reports a run, with what the agent gave to it.
#
# Each start has a token of its own. What it prints it also notes in a file of the host, line by line: that is the
# evidence which neither docker nor the agent can change.
number=$1 code=$2 lines=$3 pause=$4 reports=$5
token=$(date +%s%N)
note() { echo "$token $1" >>"/marks/$number"; }
note start

server=${WANDB_BASE_URL#http://}
post() ( # one request; true when it was taken
  exec 3<>"/dev/tcp/${server%:*}/${server#*:}"
  printf 'POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n' "$1" "$server" "$WANDB_API_KEY" >&3
  printf 'Content-Type: application/json\r\nContent-Length: %s\r\nConnection: close\r\n\r\n%s' ${#2} "$2" >&3
  read -r answer <&3 && [[ $answer == *" 200 "* ]]
) 2>/dev/null
tell() { [ "$reports" = no ] || until post "$@"; do sleep 0.3; done; }

query='mutation u($e: String, $p: String, $n: String) {
  upsertBucket(input: {entityName: $e, modelName: $p, name: $n}) { inserted } }'
run="{\"e\": \"$WANDB_ENTITY\", \"p\": \"$WANDB_PROJECT\", \"n\": \"$WANDB_RUN_ID\"}"
tell /graphql "{\"query\": \"${query//$'\n'/ }\", \"variables\": $run}"
for ((i = 1; i <= lines; i++)); do
  line="job $number start $token line $i of $lines"
  if ((i % 2)); then echo "$line"; else echo "$line" >&2; fi
  note "$i"
  sleep "$pause"
done
tell "/files/$WANDB_ENTITY/$WANDB_PROJECT/$WANDB_RUN_ID/file_stream" "{\"complete\": true, \"exitcode\": $code}"
note end
exit "$code"
