<?php
// A worker on the PHP extension. Arguments: host port.

declare(strict_types=1);

$worker = new GearmanWorker();
$worker->addServer($argv[1], (int) $argv[2]);
$worker->addFunction('noop', fn (GearmanJob $job): string => $job->workload());
while ($worker->work());
