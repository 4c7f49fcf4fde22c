<?php
// A client as people write it: no host, no port. Arguments: functions to call with a workload.

declare(strict_types=1);

$client = new GearmanClient();
$client->addServer();
echo 'ping ', var_export($client->ping('are you there'), true), "\n";
foreach (array_slice($argv, 1) as $function) {
    echo "$function: ", $client->doNormal($function, 'abc'), "\n";
    echo "$function high: ", $client->doHigh($function, 'abc'), "\n";
    echo "$function low: ", $client->doLow($function, 'abc'), "\n";
    $handle = $client->doBackground($function, 'abc');
    echo "$function in the background: ", $client->returnCode() === GEARMAN_SUCCESS ? 'taken' : 'refused';
    while ($client->jobStatus($handle)[0]) {
        usleep(1000);
    }
    echo ", done\n";
    $seen = [];
    $client->setStatusCallback(function (GearmanTask $task) use (&$seen): void {
        $seen[] = $task->taskNumerator() . '/' . $task->taskDenominator();
    });
    $client->setDataCallback(function (GearmanTask $task) use (&$seen): void {
        $seen[] = $task->data();
    });
    $client->setCompleteCallback(function (GearmanTask $task) use (&$seen): void {
        $seen[] = $task->data();
    });
    $client->addTask($function, 'abc', null, 'unique-php');
    $client->runTasks();
    echo "$function as a task: ", implode(' ', $seen), "\n";
    $client->clearCallbacks();
}
