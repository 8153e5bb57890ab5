------------------------------- MODULE Volume -------------------------------
(***************************************************************************)
(* The volume protocol: the write path, gossip, and recovery, with fixed   *)
(* membership and without garbage collection or backtrack.  The groups of  *)
(* a volume are a set; a mini-transaction (MTR) may cross them.            *)
(*                                                                         *)
(* Granularity: fused.  To deliver a message is one step: the segment      *)
(* receives it, makes durable what follows from it and answers, and the    *)
(* writer takes the answer.  To pull is one step: question, answer, durable*)
(* write, and the acknowledgement that follows.  So a segment's `heard' is *)
(* its durable promise here.  A crash loses nothing in such a step; what   *)
(* was sent can be delivered at any later time, any number of times, or    *)
(* never.  Writers never stop: an overtaken one goes on until a segment    *)
(* refuses it, and what it sent before can still arrive after that.        *)
(*                                                                         *)
(* A batch, of an append as of gossip, is one record.                      *)
(*                                                                         *)
(* The initial state is that of a volume whose first writer has just       *)
(* opened it: every segment has promised epoch 1 and has its history, and  *)
(* the writer has every acknowledgement.                                   *)
(*                                                                         *)
(* README.md maps actions to Rust functions and invariants to properties.  *)
(***************************************************************************)
EXTENDS Integers, Sequences, FiniteSets

CONSTANTS
    Groups,        \* the protection groups, a set
    Segments,      \* a group's copies, a set: the same names in every group
    LastEpoch,     \* writers have the epochs 1 .. LastEpoch
    WriteQuorum,   \* how many segments of a group make a write quorum
    ReadQuorum,    \* how many segments of a group make a read quorum
    Lal,           \* how many LSNs beyond its VDL a writer may allocate
    Mtrs           \* the MTRs that are ever written, in order; each is the
                   \* sequence of the groups of its records

\* The rules of the protocol.  All are TRUE but in configurations that must fail.
CONSTANTS
    FenceOnSeal,        \* a segment that answers a seal promises the seal's epoch
    CompleteBeforeOpen, \* a writer opens when a write quorum holds what it adopted
    AckInstalledOnly,   \* completion counts acknowledgements of its own epoch only
    CarryHistory,       \* a recovery's history begins with the history it found
    WholeHistory,       \* of all histories found the newest is used, whole, alone
    FilterGossip,       \* a segment takes no record by gossip that is annulled
    GossipAbovePromise, \* a segment adopts no history below its promise
    RecoverAtCpl,       \* a recovery point is a consistency point
    AllocateAboveRange, \* a writer allocates above the range that it annulled
    FilterAnswers       \* a recovery doesn't count records that are annulled

\* Scope, not a rule.
CONSTANT
    Publishing          \* an open writer also sends its VDL without records

\* P6, for the one membership that there is.
QuorumsMeet ==
    /\ WriteQuorum + WriteQuorum > Cardinality(Segments)
    /\ ReadQuorum + WriteQuorum > Cardinality(Segments)
    /\ LastEpoch >= 1 /\ Lal >= 1

ASSUME QuorumsMeet

Epochs == 1 .. LastEpoch

-----------------------------------------------------------------------------
(* Numbers and values. *)

Max(numbers) == CHOOSE n \in numbers : \A m \in numbers : m <= n
Min(numbers) == CHOOSE n \in numbers : \A m \in numbers : n <= m

\* No LSN is higher: each epoch starts LAL above the end of the log that it found.
LsnMax == Lal * LastEpoch +
    Cardinality(UNION {{<<i, j>> : j \in 1 .. Len(Mtrs[i])} : i \in 1 .. Len(Mtrs)})
Lsns == 0 .. LsnMax
Nothing == -1   \* no LSN: nothing told, or nothing acknowledged

Lsn(records) == {r.lsn : r \in records}
OfGroup(records, g) == {r \in records : r.group = g}

\* Where the chain of backlinks that starts at `from' breaks.
RECURSIVE Follow(_, _)
Follow(links, from) ==
    LET next == {link \in links : link.prev = from}
    IN  IF next = {} THEN from ELSE Follow(links, Min(Lsn(next)))

\* The segment complete LSN of a segment of one group that holds `records'.
Scl(records) == Follow({[prev |-> r.prevGroup, lsn |-> r.lsn] : r \in records}, 0)

\* A history is a sequence of ranges; its epoch is that of the writer that installed it.
HistoryEpoch(history) == IF history = <<>> THEN 0 ELSE history[Len(history)].epoch
Point(history) == IF history = <<>> THEN 0 ELSE history[Len(history)].after
Through(history) == IF history = <<>> THEN 0 ELSE history[Len(history)].through

Annuls(history, r) ==
    \E i \in 1 .. Len(history) :
        /\ r.epoch < history[i].epoch
        /\ history[i].after < r.lsn
        /\ r.lsn <= history[i].through

Retained(history, records) == {r \in records : ~Annuls(history, r)}

RecordType == [lsn : Lsns, epoch : Epochs, prevVolume : Lsns, prevGroup : Lsns,
               group : Groups, cpl : BOOLEAN]
RangeType == [epoch : Epochs, after : Lsns, through : Lsns]
IsHistory(history) ==
    /\ Len(history) <= LastEpoch
    /\ \A i \in 1 .. Len(history) :
        /\ history[i] \in RangeType
        /\ history[i].after < history[i].through
        /\ i > 1 => /\ history[i - 1].epoch < history[i].epoch
                    /\ history[i - 1].through < history[i].through

-----------------------------------------------------------------------------
(* Segments: what is durable. *)

VARIABLE segments   \* by group, by segment

SegmentsTypeInv ==
    \A g \in Groups, s \in Segments :
        LET segment == segments[g][s] IN
        /\ segment.promised \in Epochs       \* the highest epoch sealed or adopted
        /\ IsHistory(segment.history)        \* the history in force
        /\ HistoryEpoch(segment.history) <= segment.promised
        /\ segment.vdl \in Lsns              \* the highest VDL that it was told
        /\ \A r \in segment.log :            \* its records
            /\ r \in RecordType
            /\ r.group = g

-----------------------------------------------------------------------------
(* Writers: nothing of them is durable. *)

VARIABLE writers    \* by epoch

Phases == {"idle", "sealing", "installing", "open", "fenced"}

WritersTypeInv ==
    \A e \in Epochs :
        LET writer == writers[e] IN
        /\ writer.phase \in Phases
        /\ IsHistory(writer.history)         \* what it installs; empty before it chose
        /\ \A a \in writer.answers :         \* the seal answers, until it chose
            /\ a.group \in Groups /\ a.from \in Segments
            /\ a.scl \in Lsns /\ a.vdl \in Lsns
            /\ IsHistory(a.history)
            /\ \A r \in a.records : r \in RecordType
        /\ \A g \in Groups :
            /\ writer.ends[g] \in Lsns       \* the group's last record at or under R
            /\ \A s \in Segments :           \* the SCLs acknowledged in its epoch
                writer.acked[g][s] \in {Nothing} \union Lsns
        /\ writer.phase # "sealing" => writer.answers = {}
        /\ writer.phase \in {"idle", "sealing"} => writer.history = <<>>
        /\ writer.phase \in {"installing", "open"} => HistoryEpoch(writer.history) = e

-----------------------------------------------------------------------------
(* Messages.  Who was started has sent its seal to every segment, and who  *)
(* has chosen its history.  Appends are a set.                             *)

VARIABLE appends    \* by the sender's epoch

AppendsTypeInv ==
    \A e \in Epochs : \A m \in appends[e] :
        /\ m.group \in Groups /\ m.to \in Segments
        /\ m.vdl \in Lsns                    \* the sender's VDL when it sent this
        /\ Cardinality(m.records) <= 1       \* a batch is one record, or none
        /\ \A r \in m.records : r \in RecordType /\ r.epoch = e /\ r.group = m.group

-----------------------------------------------------------------------------
(* The abstract volume: what was ever written, and what clients were told. *)

VARIABLES
    written,        \* every record that was ever allocated
    told            \* by epoch: the highest VDL told; Nothing before the writer opens

VolumeTypeInv ==
    /\ \A r \in written : r \in RecordType
    /\ \A e \in Epochs : told[e] \in {Nothing} \union Lsns

TypeInv ==
    /\ SegmentsTypeInv
    /\ WritersTypeInv
    /\ AppendsTypeInv
    /\ VolumeTypeInv

vars == <<segments, writers, appends, written, told>>

-----------------------------------------------------------------------------
(* The initial state. *)

FirstHistory == <<[epoch |-> 1, after |-> 0, through |-> Lal]>>

NothingAcked == [g \in Groups |-> [s \in Segments |-> Nothing]]

IdleWriter ==
    [phase |-> "idle", answers |-> {}, history |-> <<>>,
     ends |-> [g \in Groups |-> 0], acked |-> NothingAcked]

Init ==
    /\ segments = [g \in Groups |-> [s \in Segments |->
            [promised |-> 1, history |-> FirstHistory, log |-> {}, vdl |-> 0]]]
    /\ writers = [e \in Epochs |->
            IF e = 1
            THEN [IdleWriter EXCEPT !.phase = "open", !.history = FirstHistory,
                    !.acked = [g \in Groups |-> [s \in Segments |-> 0]]]
            ELSE IdleWriter]
    /\ appends = [e \in Epochs |-> {}]
    /\ written = {}
    /\ told = [e \in Epochs |-> IF e = 1 THEN 0 ELSE Nothing]

-----------------------------------------------------------------------------
(* Recovery: what follows from a set of seal answers. *)

\* What segment `s' reports: its records above the VDL that it knows, and the last one at or
\* under it, which names the group's end when there is nothing above.
\* core/src/segment/fence.rs: seal_answer
Answer(g, s, segment) ==
    LET known == {r \in segment.log : r.lsn <= segment.vdl}
    IN  [group |-> g, from |-> s, scl |-> Scl(segment.log), vdl |-> segment.vdl,
         history |-> segment.history,
         records |-> (segment.log \ known) \union {r \in known : r.lsn = Max(Lsn(known))}]

\* Seeded: the union of all ranges, in the order of epochs.
MergedHistory(answers) ==
    LET ranges == UNION {{a.history[i] : i \in 1 .. Len(a.history)} : a \in answers}
    IN  [i \in 1 .. Cardinality(ranges) |-> CHOOSE range \in ranges :
            Cardinality({other \in ranges : other.epoch < range.epoch}) = i - 1]

\* The newest history among the answers, whole.  core/src/recovery.rs: find_history
FoundHistory(answers) ==
    IF WholeHistory
    THEN (CHOOSE a \in answers : \A b \in answers :
            HistoryEpoch(b.history) <= HistoryEpoch(a.history)).history
    ELSE MergedHistory(answers)

\* An answer under the history that was chosen: what that annuls is dropped, and the SCL lowered
\* to the last record of the chain that is retained.  core/src/recovery.rs: scl_under
Under(history, a) ==
    LET records == IF FilterAnswers THEN Retained(history, a.records) ELSE a.records
    IN  [group |-> a.group, records |-> records,
         scl |-> Max({0} \union {l \in Lsn(records) : l <= a.scl})]

\* The deciding formula: which history was found, what of the log is found under it,
\* where the volume's chain breaks, and the recovery point.
\* core/src/recovery.rs: choose
Choose(answers) ==
    LET history == FoundHistory(answers)
        vdl == Max({a.vdl : a \in answers})
        lowered == {Under(history, a) : a \in answers}
        found == UNION {a.records : a \in lowered}
        ends == [g \in Groups |-> Max({a.scl : a \in {b \in lowered : b.group = g}})]
        complete == {r \in found : r.lsn <= ends[r.group]}
        vcl == Follow({[prev |-> r.prevVolume, lsn |-> r.lsn] : r \in complete}, vdl)
        cpls == {r \in complete : r.cpl /\ r.lsn <= vcl}
        point == IF RecoverAtCpl THEN Max({vdl} \union Lsn(cpls)) ELSE vcl
    IN  [history |-> history,
         point |-> point,
         ends |-> [g \in Groups |->
                    Max({0} \union {l \in Lsn(OfGroup(found, g)) : l <= point})]]

\* The history that a recovery of epoch `e' installs after it chose.
\* core/src/recovery.rs: next_history
NewHistory(e, choice) ==
    LET range == [epoch |-> e, after |-> choice.point,
                  through |-> Max({choice.point, Through(choice.history)}) + Lal]
    IN  IF CarryHistory THEN Append(choice.history, range) ELSE <<range>>

IsSealed(answers) ==
    \A g \in Groups : Cardinality({a \in answers : a.group = g}) >= ReadQuorum

-----------------------------------------------------------------------------
(* What a writer becomes by an answer that it takes. *)

Own(e) == {r \in written : r.epoch = e}

\* The highest LSN that a write quorum has reached.  core/src/consistency.rs: Pgcl::of
Pgcl(acked) ==
    Max({Nothing} \union {acked[s] : s \in {t \in Segments :
        Cardinality({u \in Segments : acked[u] >= acked[t]}) >= WriteQuorum}})

\* Its own records above the VCL.  core/src/writer/open.rs: advance
Unresolved(e, writer) ==
    LET short == {r \in Own(e) : r.lsn > Pgcl(writer.acked[r.group])}
    IN  {r \in Own(e) : \E q \in short : q.lsn <= r.lsn}

\* What it has told: its VDL, once it is open.
Tells(e, writer) ==
    IF writer.phase # "open" THEN told[e]
    ELSE Max({Point(writer.history)} \union
             Lsn({r \in Own(e) \ Unresolved(e, writer) : r.cpl}))

\* Whether a recovery is complete.  core/src/writer/installing.rs: is_complete
IsComplete(ends, acked) ==
    \A g \in Groups :
        LET needed == IF CompleteBeforeOpen THEN ends[g] ELSE 0
        IN  Cardinality({s \in Segments : acked[g][s] >= needed}) >= WriteQuorum

\* Sealed{e, answer}.  It chooses when the seal holds.
\* core/src/writer/sealing.rs: receive_sealed, choose_if_sealed
AfterSealed(e, writer, answer) ==
    LET answers == {a \in writer.answers : a.group # answer.group \/ a.from # answer.from}
                   \union {answer}
        choice == Choose(answers)
    IN  IF writer.phase # "sealing" THEN writer
        ELSE IF ~IsSealed(answers) THEN [writer EXCEPT !.answers = answers]
        ELSE [phase |-> "installing", answers |-> {}, history |-> NewHistory(e, choice),
              ends |-> choice.ends,
              acked |-> [g \in Groups |-> [s \in Segments |->
                    IF AckInstalledOnly THEN Nothing
                    \* Seeded: what a seal answer said counts as acknowledged.
                    ELSE Max({Nothing} \union
                             {a.scl : a \in {b \in answers : b.group = g /\ b.from = s}})]]]

\* Ack{e, scl}.  It opens when its recovery is complete.
\* core/src/writer/installing.rs: receive_ack, open_if_complete;
\* core/src/writer/open.rs: acknowledge
AfterAck(writer, g, s, scl) ==
    LET acked == [writer.acked EXCEPT ![g][s] = Max({@, scl})]
        opens == writer.phase = "open" \/ IsComplete(writer.ends, acked)
    IN  IF writer.phase \notin {"installing", "open"} THEN writer
        ELSE IF ~opens THEN [writer EXCEPT !.acked = acked]
        \* From now on nothing acknowledged is the same as an SCL of zero.
        ELSE [writer EXCEPT !.phase = "open", !.acked =
                [k \in Groups |-> [t \in Segments |-> Max({0, acked[k][t]})]]]

\* Refused{e, Fenced}, the first.  It stops for ever.  core/src/writer.rs: receive_refused
AfterFenced(writer) == [IdleWriter EXCEPT !.phase = "fenced", !.history = writer.history]

-----------------------------------------------------------------------------
(* What a segment becomes. *)

\* core/src/segment/fence.rs: receive_seal
Sealed(segment, e) == IF FenceOnSeal THEN [segment EXCEPT !.promised = e] ELSE segment

\* core/src/segment/fence.rs: receive_install
Installed(segment, e, history) ==
    [segment EXCEPT !.promised = e, !.history = history, !.log = Retained(history, @)]

\* core/src/segment/append.rs: receive_append
Appended(segment, m) ==
    [segment EXCEPT !.log = @ \union Retained(segment.history, m.records),
                    !.vdl = Max({@, m.vdl})]

\* The one record, a batch, that `asked' offers: its lowest above the asking segment's SCL, but
\* for the one that `asking' says that it has.  core/src/segment/gossip.rs: pull, receive_pull
Offered(asking, asked) ==
    LET scl == Scl(asking.log)
        beyond == {l \in Lsn(asking.log) : l > scl}
        lacking == {r \in asked.log : r.lsn > scl /\ ~(r.lsn \in beyond /\ r.lsn = Min(beyond))}
    IN  {r \in lacking : r.lsn = Min(Lsn(lacking))}

\* core/src/segment/gossip.rs: receive_pulled
Pulled(asking, asked) ==
    LET epoch == HistoryEpoch(asked.history)
        gained == {r \in Offered(asking, asked) : r.epoch <= epoch}
    IN  IF FilterGossip
        THEN [promised |-> Max({asking.promised, epoch}), history |-> asked.history,
              log |-> Retained(asked.history, asking.log \union gained),
              vdl |-> Max({asking.vdl, asked.vdl})]
        \* Seeded: records travel without a history, from anyone to anyone.
        ELSE [asking EXCEPT !.log = @ \union Offered(asking, asked)]

-----------------------------------------------------------------------------
(* Steps of a writer. *)

\* A recovery starts, and seals.  core/src/writer.rs: open
Start ==
    \E e \in 2 .. LastEpoch :
        /\ writers[e].phase = "idle"
        /\ writers[e - 1].phase # "idle"
        /\ writers' = [writers EXCEPT ![e].phase = "sealing"]
        /\ UNCHANGED <<segments, appends, written, told>>

NextMtr == Cardinality({r \in written : r.cpl}) + 1

\* The records of the next MTR, as writer `e' allocates them.
\* core/src/writer/allocation.rs: allocate
Allocated(e) ==
    LET writer == writers[e]
        mtr == Mtrs[NextMtr]
        own == Own(e)
        last == Max({Point(writer.history)} \union Lsn(own))
        base == IF AllocateAboveRange
                THEN Max({Through(writer.history)} \union Lsn(own))
                ELSE last
    IN  {[lsn |-> base + i, epoch |-> e,
          prevVolume |-> IF i = 1 THEN last ELSE base + i - 1,
          prevGroup |-> Max({writer.ends[mtr[i]]} \union Lsn(OfGroup(own, mtr[i]))
                            \union {base + j : j \in {k \in 1 .. (i - 1) : mtr[k] = mtr[i]}}),
          group |-> mtr[i],
          cpl |-> i = Len(mtr)] : i \in 1 .. Len(mtr)}

\* An open writer writes the next MTR: it sends its records, with the VDL, to every segment.
\* core/src/writer/allocation.rs: write, allowance
Write ==
    \E e \in Epochs :
        /\ writers[e].phase = "open"
        /\ NextMtr <= Len(Mtrs)
        /\ \E records \in {Allocated(e)} :
            /\ Max(Lsn(records)) <= Max({told[e], Through(writers[e].history)}) + Lal
            /\ written' = written \union records
            /\ appends' = [appends EXCEPT ![e] = @ \union
                    {[group |-> r.group, to |-> s, vdl |-> told[e], records |-> {r}] :
                        r \in records, s \in Segments}]
        /\ UNCHANGED <<segments, writers, told>>

\* An open writer tells every segment the VDL.  core/src/writer/allocation.rs: publish
Publish ==
    /\ Publishing
    /\ \E e \in Epochs :
        /\ writers[e].phase = "open"
        /\ appends' = [appends EXCEPT ![e] = @ \union
                {[group |-> g, to |-> s, vdl |-> told[e], records |-> {}] :
                    g \in Groups, s \in Segments}]
        /\ UNCHANGED <<segments, writers, written, told>>

-----------------------------------------------------------------------------
(* Deliveries. *)

\* core/src/segment/fence.rs: receive_seal, answer_seal
DeliverSeal ==
    \E e \in 2 .. LastEpoch, g \in Groups, s \in Segments :
        /\ writers[e].phase # "idle"
        /\ segments[g][s].promised <= e
        /\ segments' = [segments EXCEPT ![g][s] = Sealed(@, e)]
        /\ writers' = [writers EXCEPT ![e] = AfterSealed(e, @, Answer(g, s, segments'[g][s]))]
        /\ UNCHANGED <<appends, written, told>>

\* core/src/segment/fence.rs: receive_install; core/src/segment.rs: acknowledge
DeliverInstall ==
    \E e \in 2 .. LastEpoch, g \in Groups, s \in Segments :
        /\ writers[e].history # <<>>
        /\ segments[g][s].promised <= e
        /\ segments' = [segments EXCEPT ![g][s] = Installed(@, e, writers[e].history)]
        /\ writers' = [writers EXCEPT ![e] = AfterAck(@, g, s, Scl(segments'[g][s].log))]
        /\ told' = [told EXCEPT ![e] = Tells(e, writers'[e])]
        /\ UNCHANGED <<appends, written>>

\* core/src/segment/append.rs: receive_append; core/src/segment.rs: acknowledge
DeliverAppend ==
    \E e \in Epochs : \E m \in appends[e] :
        /\ segments[m.group][m.to].promised = e
        /\ HistoryEpoch(segments[m.group][m.to].history) = e
        /\ segments' = [segments EXCEPT ![m.group][m.to] = Appended(@, m)]
        /\ writers' = [writers EXCEPT ![e] =
                AfterAck(@, m.group, m.to, Scl(segments'[m.group][m.to].log))]
        /\ told' = [told EXCEPT ![e] = Tells(e, writers'[e])]
        /\ UNCHANGED <<appends, written>>

\* A segment without the writer's history answers Behind to an append.  The writer sends its
\* history again, which can be delivered anyway, and with its present VDL what is unresolved.
\* core/src/segment.rs: check_epoch; core/src/writer.rs: receive_refused;
\* core/src/writer/open.rs: resend
DeliverAppendBehind ==
    \E e \in Epochs : \E m \in appends[e] :
        /\ writers[e].phase = "open"
        /\ segments[m.group][m.to].promised <= e
        /\ HistoryEpoch(segments[m.group][m.to].history) < e
        /\ appends' = [appends EXCEPT ![e] = @ \union
                {[group |-> m.group, to |-> m.to, vdl |-> told[e], records |-> {r}] :
                    r \in OfGroup(Unresolved(e, writers[e]), m.group)}]
        /\ UNCHANGED <<segments, writers, written, told>>

\* A segment refuses whatever it is sent by a writer below its promise: its seal, or an append.
\* (The first writer's seal has arrived everywhere before the initial state.)
\* core/src/segment.rs: check_fence
DeliverFenced ==
    \E e \in Epochs :
        /\ writers[e].phase \notin {"idle", "fenced"}
        /\ \/ e > 1 /\ \E g \in Groups, s \in Segments : segments[g][s].promised > e
           \/ \E m \in appends[e] : segments[m.group][m.to].promised > e
        /\ writers' = [writers EXCEPT ![e] = AfterFenced(@)]
        /\ UNCHANGED <<segments, appends, written, told>>

-----------------------------------------------------------------------------
(* Gossip. *)

\* Segment `i' pulls from segment `j' what it lacks; with the records comes the history that they
\* survive; the writer of that history gets an acknowledgement.
\* core/src/segment/gossip.rs: pull, receive_pull, receive_pulled
Pull ==
    \E g \in Groups, i \in Segments, j \in Segments :
        /\ i # j
        /\ FilterGossip =>
            HistoryEpoch(segments[g][i].history) <= HistoryEpoch(segments[g][j].history)
        /\ FilterGossip /\ GossipAbovePromise =>
            segments[g][i].promised <= HistoryEpoch(segments[g][j].history)
        /\ segments' = [segments EXCEPT ![g][i] = Pulled(@, segments[g][j])]
        /\ \E e \in {HistoryEpoch(segments'[g][i].history)} :
            IF segments'[g][i].promised = e
            THEN /\ writers' = [writers EXCEPT ![e] =
                        AfterAck(@, g, i, Scl(segments'[g][i].log))]
                 /\ told' = [told EXCEPT ![e] = Tells(e, writers'[e])]
            ELSE UNCHANGED <<writers, told>>
        /\ UNCHANGED <<appends, written>>

-----------------------------------------------------------------------------

Next ==
    \/ Start
    \/ Write
    \/ Publish
    \/ DeliverSeal
    \/ DeliverInstall
    \/ DeliverAppend
    \/ DeliverAppendBehind
    \/ DeliverFenced
    \/ Pull

Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------
(* What the properties speak of. *)

Opened == {e \in Epochs : told[e] # Nothing}
Chosen == {e \in Epochs : writers[e].history # <<>>}

\* The log as the writer of epoch `e' knows it, up to `lsn'.
LogOf(e, lsn) == {r \in written : r.epoch <= e /\ r.lsn <= lsn
                                  /\ ~Annuls(writers[e].history, r)}

ToldBy(e) == LogOf(e, told[e])

\* Every way for a seal to hold: at the first moment when a read quorum of each group has
\* answered, no more than that has in the group of the last answer.
Seals == {seal \in [Groups -> {q \in SUBSET Segments : Cardinality(q) >= ReadQuorum}] :
            \E g \in Groups : Cardinality(seal[g]) = ReadQuorum}

SealAnswers(seal) == UNION {{Answer(g, s, segments[g][s]) : s \in seal[g]} : g \in Groups}

\* What a recovery that seals those now would choose.
Hypothetical(seal) == Choose(SealAnswers(seal))

\* What it would recover.
Recovered(choice) == {r \in written : r.lsn <= choice.point /\ ~Annuls(choice.history, r)}

IsHeld(r, seal) == \E s \in seal[r.group] : r \in segments[r.group][s].log

\* A log without a gap that ends at `point', which is a consistency point or the beginning.
IsCut(records, point) ==
    /\ \A r \in records :
        r.prevVolume = Max({0} \union {l \in Lsn(records) : l < r.lsn})
    /\ point = Max({0} \union Lsn(records))
    /\ \A r \in records : r.lsn = point => r.cpl

-----------------------------------------------------------------------------
(* Invariants. *)

\* P1: whatever was told is found by a recovery from any read quorum.
DurabilityInv ==
    \A seal \in Seals :
        LET recovered == Recovered(Hypothetical(seal)) IN
        \A e \in Opened : \A r \in ToldBy(e) : r \in recovered /\ IsHeld(r, seal)

\* P2: no two records that were told have the same LSN, and nothing is told that the log of a
\* higher epoch that has opened doesn't contain.
OneWriterInv ==
    \A e \in Opened : \A f \in Opened : e < f =>
        /\ \A r \in ToldBy(e) : r \in LogOf(f, Point(writers[f].history))
        /\ \A q \in ToldBy(e), r \in ToldBy(f) : q.lsn = r.lsn => q = r

\* No LSN is used twice.
UniqueLsnInv == \A q \in written, r \in written : q.lsn = r.lsn => q = r

\* P3: what a recovery chose, or would choose, is the log up to a consistency point, whole.
PrefixInv ==
    /\ \A e \in Chosen :
        LET point == Point(writers[e].history) IN IsCut(LogOf(e, point), point)
    /\ \A seal \in Seals :
        LET choice == Hypothetical(seal) IN
        /\ IsCut(Recovered(choice), choice.point)
        /\ \A r \in Recovered(choice) : IsHeld(r, seal)

\* P5, in the order of epochs.
MonotoneInv ==
    \A e \in Opened : \A f \in Opened : e < f =>
        told[e] <= Point(writers[f].history) /\ Point(writers[f].history) <= told[f]

\* P5, in the order of time, within an epoch; and what a segment has durable never goes back.
MonotoneProp ==
    [][ /\ \A e \in Epochs :
            /\ told[e] <= told'[e]
            /\ writers[e].phase = "open" /\ writers'[e].phase = "open" =>
                \A g \in Groups : Pgcl(writers[e].acked[g]) <= Pgcl(writers'[e].acked[g])
        /\ \A g \in Groups, s \in Segments :
            /\ segments[g][s].promised <= segments'[g][s].promised
            /\ HistoryEpoch(segments[g][s].history) <= HistoryEpoch(segments'[g][s].history)
            /\ segments[g][s].vdl <= segments'[g][s].vdl
      ]_vars

\* A segment that has answered a seal stays as it reported until it has that epoch's history, or a
\* newer one; it may promise more.
SealedProp ==
    [][ \A g \in Groups, s \in Segments :
            HistoryEpoch(segments[g][s].history) < segments[g][s].promised =>
                \/ segments[g][s].promised <= HistoryEpoch(segments'[g][s].history)
                \/ [segments'[g][s] EXCEPT !.promised = 0] = [segments[g][s] EXCEPT !.promised = 0]
      ]_vars

\* P7: what an opened epoch annulled is annulled for every later one, and held by no segment that
\* has its history or a newer one.
NoResurrectionInv ==
    \A e \in Opened : \A r \in {q \in written : Annuls(writers[e].history, q)} :
        /\ \A f \in Chosen : f >= e => Annuls(writers[f].history, r)
        /\ \A g \in Groups, s \in Segments :
            HistoryEpoch(segments[g][s].history) >= e => r \notin segments[g][s].log
        /\ \A seal \in Seals : r \notin Recovered(Hypothetical(seal))

\* P9: once an epoch is open, no read quorum chooses an older history.
RecoveryIdempotentInv ==
    \A seal \in Seals :
        LET found == HistoryEpoch(FoundHistory(SealAnswers(seal))) IN
        \A e \in Opened : e <= found

\* What an SCL says: no record of the group at or under it, of the epochs that the segment's
\* history knows and not annulled by it, is missing.
CompletenessInv ==
    \A g \in Groups, s \in Segments : \A r \in OfGroup(written, g) :
        LET segment == segments[g][s] IN
        /\ r.lsn <= Scl(segment.log)
        /\ r.epoch <= HistoryEpoch(segment.history)
        /\ ~Annuls(segment.history, r)
        => r \in segment.log

\* An open writer has told all that is durable, and no more: a consistency point when it and all
\* its own records before it are acknowledged by write quorums.
VdlInv ==
    \A e \in Epochs : writers[e].phase = "open" =>
        LET writer == writers[e]
            durable == {r \in Own(e) : r.cpl /\ \A q \in Own(e) : q.lsn <= r.lsn =>
                Cardinality({s \in Segments : writer.acked[q.group][s] >= q.lsn})
                    >= WriteQuorum}
        IN  told[e] = Max({Point(writer.history)} \union Lsn(durable))

-----------------------------------------------------------------------------
(* Situations that must be reachable: each of these must be violated. *)

\* A recovery adopts a record that its own writer never told.
AdoptedWitness ==
    \A e \in Opened : \A r \in LogOf(e, Point(writers[e].history)) :
        r.epoch < e => r.lsn <= told[r.epoch]

\* A recovery that has opened annuls a record.
TruncatedWitness == \A e \in Opened : \A r \in written : ~Annuls(writers[e].history, r)

\* An overtaken writer tells something: a newer recovery is already installing.
ZombieWitness ==
    \A e \in Opened : \A f \in Chosen : e < f => ToldBy(e) = {} \/ writers[e].phase # "open"

\* A recovery's history is on some segment and never on a write quorum: a newer one opens first.
HalfInstalledWitness ==
    \A e \in Chosen : \A f \in Opened : e < f /\ e \notin Opened =>
        \A g \in Groups, s \in Segments : HistoryEpoch(segments[g][s].history) # e

\* The log of a volume holds what two writers wrote.
TwoWritersWitness ==
    \A e \in Opened : \A q \in ToldBy(e), r \in ToldBy(e) : q.epoch = r.epoch

=============================================================================
