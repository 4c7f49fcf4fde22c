<?php
// A worker program on the PHP extension. Arguments: host port id specification, the last one JSON:
// {"functions": {name: behaviour}, "log": path}.

declare(strict_types=1);

[, $host, $port, $id, $specification] = $argv;
$specification = json_decode($specification, true);

$hold = function (string $workload): void {
    if (preg_match('/^wait=([^;]+);/', $workload, $found)) {
        file_get_contents($found[1]); // a FIFO: returns when the test has opened and closed it
    }
};
$behaviours = [
    'reverse' => fn (GearmanJob $job): string => strrev($job->workload()),
    // The extension replaces the text of what a callback throws by one of its own, so programs send it.
    'raise' => fn (GearmanJob $job): bool => $job->sendException($job->workload()),
    'steps' => function (GearmanJob $job) use ($hold): string {
        $job->sendStatus(1, 4);
        $hold($job->workload());
        $job->sendStatus(3, 4);
        return 'done';
    },
    'record' => function (GearmanJob $job) use ($hold, $specification): string {
        $hold($job->workload());
        $entry = ['workload' => $job->workload(), 'unique' => $job->unique()];
        file_put_contents($specification['log'], json_encode($entry) . "\n", FILE_APPEND);
        return $job->workload();
    },
];

$worker = new GearmanWorker();
$worker->addServer($host, (int) $port);
$worker->setId($id);
foreach ($specification['functions'] as $name => $behaviour) {
    $worker->addFunction($name, $behaviours[$behaviour]);
}
while (true) {
    // After a job that ended by an exception work() warns; the worker is as good as before.
    @$worker->work();
}
