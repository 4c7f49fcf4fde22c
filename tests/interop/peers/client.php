<?php
// A client program on the PHP extension: one JSON request per input line, one JSON event per output line.
// Arguments: host port.

declare(strict_types=1);

const NO_REPLY_MS = 60000;

function say(string $event, array $fields = []): void
{
    fwrite(STDOUT, json_encode(['event' => $event] + $fields) . "\n");
    fflush(STDOUT);
}

[, $host, $port] = $argv;
$client = new GearmanClient();
$client->addServer($host, (int) $port);
$client->setTimeout(NO_REPLY_MS);

$client->setCreatedCallback(fn ($task) => say('created', ['handle' => $task->jobHandle()]));
$client->setDataCallback(fn ($task) => say('data', ['hex' => bin2hex($task->data())]));
$client->setWarningCallback(fn ($task) => say('warning', ['hex' => bin2hex($task->data())]));
$client->setStatusCallback(fn ($task) => say('status', [
    'numerator' => $task->taskNumerator(),
    'denominator' => $task->taskDenominator(),
]));
$client->setCompleteCallback(fn ($task) => say('complete', ['hex' => bin2hex($task->data())]));
$client->setExceptionCallback(fn ($task) => say('exception', ['hex' => bin2hex($task->data())]));
$client->setFailCallback(fn ($task) => say('fail'));

$foreground = ['high' => 'addTaskHigh', 'normal' => 'addTask', 'low' => 'addTaskLow'];
$background = ['high' => 'doHighBackground', 'normal' => 'doBackground', 'low' => 'doLowBackground'];

while (($line = fgets(STDIN)) !== false) {
    $request = json_decode($line, true);
    if ($request['op'] === 'ask') {
        [$known, $running, $numerator, $denominator] = $client->jobStatus($request['handle']);
        say('state', compact('known', 'running', 'numerator', 'denominator'));
        continue;
    }
    $workload = hex2bin($request['hex']);
    $unique = $request['unique'] ?? ''; // empty: the library makes one up
    if ($request['background']) {
        $method = $background[$request['priority']];
        say('created', ['handle' => $client->$method($request['function'], $workload, $unique)]);
    } else {
        $method = $foreground[$request['priority']];
        $client->$method($request['function'], $workload, null, $unique);
        if (!$client->runTasks()) {
            say('error', ['code' => $client->returnCode(), 'text' => $client->error()]);
        }
    }
    say('end');
}
