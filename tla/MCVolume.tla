------------------------------ MODULE MCVolume ------------------------------
(***************************************************************************)
(* Volume, narrowed: values that a configuration file can't write, and a   *)
(* start in the middle for what lies too deep.                             *)
(***************************************************************************)
EXTENDS Volume

\* Again, because not every checker reads the ASSUME of a module that is extended.
ASSUME QuorumsMeet

OneRecord == <<<<1>>>>
TwoRecords == <<<<1>>, <<1>>>>
TwoInOne == <<<<1, 1>>>>       \* one MTR of two records
AcrossGroups == <<<<1, 2>>>>   \* one MTR of a record in each of two groups

-----------------------------------------------------------------------------
(* A sleeper: one segment of three has the only record, which nobody was   *)
(* told, and has missed that epoch 2 opened without it.                    *)

Sleeper == CHOOSE s \in Segments : TRUE
SleepingRecord == [lsn |-> Lal + 1, epoch |-> 1, prevVolume |-> 0, prevGroup |-> 0,
                   group |-> 1, cpl |-> TRUE]
SleepersHistory == NewHistory(2, [history |-> FirstHistory, point |-> 0])

SleeperInit ==
    /\ segments = [g \in Groups |-> [s \in Segments |->
            IF s = Sleeper
            THEN [promised |-> 1, history |-> FirstHistory, log |-> {SleepingRecord}, vdl |-> 0]
            ELSE [promised |-> 2, history |-> SleepersHistory, log |-> {}, vdl |-> 0]]]
    /\ writers = [e \in Epochs |->
            IF e > 2 THEN IdleWriter
            ELSE [IdleWriter EXCEPT !.phase = "open",
                    !.history = IF e = 1 THEN FirstHistory ELSE SleepersHistory,
                    !.acked = [g \in Groups |-> [s \in Segments |->
                        IF e = 1 /\ s = Sleeper THEN SleepingRecord.lsn ELSE 0]]]]
    /\ appends = [e \in Epochs |->
            IF e > 1 THEN {}
            ELSE {[group |-> 1, to |-> s, vdl |-> 0, records |-> {SleepingRecord}] :
                    s \in Segments}]
    /\ written = {SleepingRecord}
    /\ told = [e \in Epochs |-> IF e > 2 THEN Nothing ELSE 0]

\* That state is reachable: this must be violated.
SleeperWitness == ~SleeperInit

=============================================================================
