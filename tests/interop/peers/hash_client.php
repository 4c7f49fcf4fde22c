<?php
// Has files hashed by the function `hash`: paths on standard input, a line `hash path` for each.
// Arguments: host port.

declare(strict_types=1);

const AT_ONCE = 40;

[, $host, $port] = $argv;
$client = new GearmanClient();
$client->addServer($host, (int) $port);
$client->setCompleteCallback(function (GearmanTask $task, $path): void {
    fwrite(STDOUT, strtok($task->data(), ' ') . " $path\n");
});
$client->setFailCallback(function (GearmanTask $task, $path): void {
    fwrite(STDOUT, "failed $path\n");
});

$paths = file('php://stdin', FILE_IGNORE_NEW_LINES);
foreach (array_chunk($paths, AT_ONCE) as $chunk) {
    foreach ($chunk as $path) {
        $client->addTask('hash', file_get_contents($path), $path);
    }
    if (!$client->runTasks()) {
        fwrite(STDERR, $client->error() . "\n");
        exit(1);
    }
}
