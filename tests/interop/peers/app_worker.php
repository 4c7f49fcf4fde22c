<?php
// A worker as people write it: no host, no port, gearmand is expected where it always is.

declare(strict_types=1);

$worker = new GearmanWorker();
$worker->addServer();
$worker->addFunction('php_reverse', fn (GearmanJob $job): string => strrev($job->workload()));
$worker->addFunction('php_count', function (GearmanJob $job): string {
    foreach ([1, 2, 3] as $step) {
        $job->sendStatus($step, 3);
        $job->sendData((string) $step);
    }
    return '!';
});
while (true) {
    if (!@$worker->work()) {
        usleep(100_000); // the server is away
    }
}
