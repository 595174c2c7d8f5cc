/*
 * The lease protocol of Popgres as a model for spin: docs/model/README.md says what it is and what
 * it is not. One maildrop, two nodes, two sessions, one PostgreSQL. `./check.sh` runs it.
 *
 * Each proctype is somebody who acts by itself: a node's heartbeat (mail/maildrop/lease-keeper.ts),
 * a session (mail/maildrop/maildrop.ts), the backend that carries out a session's statement
 * (storage/leases.ts), the sweep (storage/nodes.ts), time, and what goes wrong. Between any two
 * steps of one, any of the others may act, as often as they like: so a process that is asleep, or a
 * statement that is late, is one that is not the next to act for long.
 */

#ifndef SESSIONS
#define SESSIONS 2
#endif
#define NODES    2
#define IDS      3    /* node ids at one time; one that nothing names any more is as good as new */
#define NOBODY   255

#ifndef LOSSES
#define LOSSES   1    /* answers that get lost, statements that fail */
#endif
#ifndef CRASHES
#define CRASHES  1    /* of a worker */
#endif
#ifndef EMPTIED
#define EMPTIED  1    /* crashes of PostgreSQL: each empties `sessions`, which is UNLOGGED */
#endif
#ifndef KICKS
#define KICKS    1    /* by an operator: popgres session kick */
#endif
#ifndef LAPSES
#define LAPSES   1    /* of trust, for which a heartbeat has to be 25 s late */
#endif

#define bit(i)      (1 << (i))
#define has(set, i) (((set) & bit(i)) != 0)

/* ---------------------------------------------------------------- what PostgreSQL knows */

byte lease = NOBODY;         /* sessions: whose row there is for the maildrop */
byte leaseId;                /* its node_id; 0 without a row */
bool isLocked;               /* a QUIT has deleted the row and has not committed yet */
bool isMessageThere = true;  /* messages: what each session that sees it marks */
byte logged;                 /* session_log: a set of sessions */

mtype = { ABSENT, LIVING, DEAD };
mtype nodeRow[IDS] = ABSENT; /* nodes: DEAD if its heartbeat_at is 30 s old */

/* ---------------------------------------------------------------- what the nodes know */

byte nodeId[NODES] = NOBODY;
bool isTrusted[NODES];       /* less than 25 s since the last renewal that was accepted was SENT */
bool isYoung[NODES];         /* the same of the renewal that is under way */
bool isLooked[NODES];        /* it has locked the row, and has not committed */
bool isWritten[NODES];       /* it has been carried out, its answer not been seen */
byte deadIds[NODES];         /* a set of ids, as of the last heartbeat */
bool isCrashed[NODES];       /* kill -9: has to begin anew */

/* ---------------------------------------------------------------- the sessions */

mtype = { OUTSIDE, ASKING, HOLDING, TRANSACTION, UPDATE, CLOSING, OVER };
mtype phase[SESSIONS] = OUTSIDE;
byte home[SESSIONS];         /* its node */
byte askedId[SESSIONS] = NOBODY; /* the node id that its lease was asked for with */
byte askedDead[SESSIONS];    /* and whose leases it might take over */
bool isAlive[SESSIONS] = true; /* its worker has not crashed */
bool isEnded[SESSIONS];      /* the keeper has said that the lease is lost */
bool isStale[SESSIONS];      /* its node has another id than the lease was asked for with */

mtype = { NOTHING, ACQUIRE, ACQUIRED, IN_USE, QUIT, RUNNING, COMMITTED, FENCED, FAILED };
mtype statement[SESSIONS] = NOTHING; /* what its backend has to do, or has done */
bool isConnected[SESSIONS] = true;   /* the answer can still be seen */

/* What the client read at QUIT, and what is true of its deletes: for the assertions alone. */
mtype = { SILENCE, SAID_OK, SAID_ERR };
mtype told[SESSIONS] = SILENCE;
byte deleted;                /* a set of sessions: their QUIT was carried out */
byte lastOwner = NOBODY;     /* who was given the maildrop last */
byte robbed[SESSIONS];       /* its row was taken by a crash of PostgreSQL or an operator: 1; 2: and a
                                heartbeat of its node has begun since */

byte lossesLeft = LOSSES;
byte crashesLeft = CRASHES;
byte emptiedLeft = EMPTIED;
byte kicksLeft = KICKS;
byte lapsesLeft = LAPSES;

#define areAllOver (phase[0] == OVER && phase[1] == OVER)
#define isLive(s)    (phase[s] == TRANSACTION || phase[s] == UPDATE || phase[s] == CLOSING)
#define isPending(s) (phase[s] == ASKING || phase[s] == HOLDING)
#define isOn(s, n)   (home[s] == n && phase[s] != OUTSIDE && phase[s] != OVER && isAlive[s])

/* ---------------------------------------------------------------- what must hold */

/* A session answers its client: only while its node's heartbeat is young enough (connection.ts,
   checkTrust). Two of one maildrop never do, unless somebody has deleted the lease row of one of
   them; that one is ended by the next heartbeat (asserted in reconcile). */
#define answers(s) (phase[s] == TRANSACTION && isAlive[s] && !isEnded[s] && isTrusted[home[s]])
#define exclusive  (!(answers(0) && answers(1)) || robbed[0] > 0 || robbed[1] > 0)

/* At the moment at which a QUIT deletes: it is the one that the maildrop was given to last, nobody
   else has it, and its client was not told that nothing was deleted. */
#define mayDelete(s) (lastOwner == s && told[s] != SAID_ERR)

inline tell(s, answer) {
  told[s] = answer;
  assert((answer != SAID_OK) || has(deleted, s));    /* +OK: deleted */
  assert((answer != SAID_ERR) || !has(deleted, s))   /* -ERR: not deleted; mayDelete: nor ever */
}

/* ---------------------------------------------------------------- statements */

inline noLease() {
  lease = NOBODY; leaseId = 0
}

/* lease-acquire. A row that a QUIT has locked is waited for 50 ms: then it is in use. */
inline acquire(s) {
  if
  :: lease == NOBODY && !isLocked -> statement[s] = ACQUIRED
#ifdef LIST_OF_THE_LIVING
  /* BROKEN: … where not node_id = any ($living): a node that has just joined is on nobody's list. */
  :: lease != NOBODY && !isLocked && !has(askedDead[s], leaseId) -> statement[s] = ACQUIRED
  :: (lease != NOBODY && has(askedDead[s], leaseId)) || isLocked -> statement[s] = IN_USE
#else
  :: lease != NOBODY && !isLocked && has(askedDead[s], leaseId) -> statement[s] = ACQUIRED
  :: (lease != NOBODY && !has(askedDead[s], leaseId)) || isLocked -> statement[s] = IN_USE
#endif
  fi;
  if
  :: statement[s] == ACQUIRED -> lease = s; leaseId = askedId[s]; lastOwner = s
  :: else
  fi
}

/* lease-quit: carried out by a backend, which may be late, and whose answer may be lost. */
inline startQuit(s) {
  if
  :: lease == s -> isLocked = true; statement[s] = RUNNING
#ifdef NO_FENCE
  /* BROKEN: the deletes do not depend on the row of the lease. */
  :: lease != s -> statement[s] = RUNNING
#else
  :: lease != s -> statement[s] = FENCED
#endif
  fi
}

inline commitQuit(s) {
  assert(mayDelete(s));
  deleted = deleted | bit(s);
  logged = logged | bit(s);
  isMessageThere = false;
  if
  :: lease == s -> noLease(); isLocked = false
  :: else
  fi;
  statement[s] = COMMITTED
}

/* lease-release: waits for a QUIT that runs. */
inline release(s) {
  !isLocked || lease != s;
  if
  :: lease == s -> noLease()
  :: else
  fi
}

/* The connection of a session's statements. A statement that was sent may be carried out whenever
   it likes, or never; that it was answered is known only while the connection holds. */
proctype Backend(byte s) {
  do
  :: d_step { statement[s] == ACQUIRE -> acquire(s); askedId[s] = NOBODY; askedDead[s] = 0 }
  :: d_step { statement[s] == QUIT && !(isLocked && lease == s) -> startQuit(s) }
  :: d_step { statement[s] == RUNNING -> commitQuit(s) }
  :: d_step { statement[s] == RUNNING && lossesLeft > 0 ->    /* an error: rolled back */
       lossesLeft--;
       isLocked = isLocked && lease != s;
       statement[s] = FAILED
     }
  :: d_step { (statement[s] == ACQUIRE || statement[s] == QUIT) && !isConnected[s] ->
       statement[s] = NOTHING; askedId[s] = NOBODY; askedDead[s] = 0    /* it never arrives */
     }
  :: phase[s] == OVER && statement[s] != ACQUIRE && statement[s] != QUIT && statement[s] != RUNNING ->
       break
  od
}

/* ---------------------------------------------------------------- a session */

/* Nobody is left who could tell the difference: fewer states. */
inline forget() {
  noLease(); isLocked = false;
  nodeRow[0] = LIVING; nodeRow[1] = LIVING; nodeRow[2] = LIVING;
  deadIds[0] = 0; deadIds[1] = 0;
  isTrusted[0] = false; isTrusted[1] = false; isYoung[0] = false; isYoung[1] = false
}

inline leave(s) {
  phase[s] = CLOSING; isEnded[s] = false; robbed[s] = 0
}

#define answered(s, result) (isConnected[s] && statement[s] == result)

proctype Session(byte s) {
  bool wasThere;
again: {
    /* attemptLease: only while this node is trusted. The list of the dead is as old as its beat. */
    atomic {
      isTrusted[home[s]];
      d_step {
        phase[s] = ASKING;
        askedId[s] = nodeId[home[s]];
        askedDead[s] = deadIds[home[s]];
        isStale[s] = false;
        statement[s] = ACQUIRE
      }
    };
    if
    :: atomic { answered(s, IN_USE) -> statement[s] = NOTHING; phase[s] = OUTSIDE; goto again }
    :: d_step { answered(s, ACQUIRED) -> statement[s] = NOTHING; phase[s] = HOLDING }
    /* In doubt: -ERR [SYS/TEMP]. The row may be there, or come yet: reconcile sees to it. */
    :: atomic { !isConnected[s] -> goto over }
    fi;
    /* begin: what is between the answer and this step may take long (LOGIN-DELAY is a statement, so
       is a maildrop's first row). */
    if
#ifdef OPEN_UNDER_OLD_ID
    /* BROKEN: only asks whether the node is trusted now, perhaps under another id. */
    :: atomic { isTrusted[home[s]] ->
#else
    :: atomic { isTrusted[home[s]] && !isStale[s] ->
#endif
         d_step { phase[s] = TRANSACTION; assert(exclusive) }
       }
#ifdef OPEN_UNDER_OLD_ID
    :: atomic { !isTrusted[home[s]] -> leave(s); goto close }
#else
    :: atomic { (!isTrusted[home[s]] || isStale[s]) -> isStale[s] = false; leave(s); goto close }
#endif
    fi;
progress_opened:
    if
    :: atomic { leave(s); goto close }    /* the client has gone, or is idle */
    :: atomic { isEnded[s] -> leave(s); goto close } /* the keeper: -ERR [SYS/TEMP] */
    :: atomic { !isTrusted[home[s]] -> leave(s); goto close } /* it was about to answer: -ERR [SYS/TEMP] */
    :: d_step { !isEnded[s] && isTrusted[home[s]] && isMessageThere ->
         phase[s] = UPDATE; statement[s] = QUIT     /* DELE 1, QUIT */
       }
    fi;
    if
    :: atomic { answered(s, COMMITTED) -> tell(s, SAID_OK); goto over }
    :: atomic { answered(s, FENCED) -> tell(s, SAID_ERR); goto over }
    :: atomic { answered(s, FAILED) -> tell(s, SAID_ERR); leave(s); goto close }
    :: !isConnected[s]
    fi;
    /* The answer is lost: resolveCommit, on another connection, until it answers or 30 s are over. */
    do
#ifdef GUESS
    /* BROKEN: looks whether the marked messages are still there. */
    :: atomic { isMessageThere -> tell(s, SAID_ERR); goto over }
    :: atomic { !isMessageThere -> tell(s, SAID_OK); goto over }
#else
    :: atomic { !isLocked || lease != s ->
         d_step { wasThere = (lease == s); release(s) };
         if
         :: lossesLeft > 0 -> lossesLeft--          /* this answer is lost too */
         :: wasThere -> tell(s, SAID_ERR); goto over
         :: !wasThere -> break
         fi
       }
    :: goto over                                    /* closes without a reply */
#endif
    od;
    atomic {
      if
      :: has(logged, s) -> tell(s, SAID_OK)
      :: else -> tell(s, SAID_ERR)
      fi;
      goto over
    };
close:
    if
    :: atomic { release(s) }
    :: d_step { lossesLeft > 0 -> lossesLeft-- }    /* the next heartbeat releases it */
    fi
  } unless { !isAlive[s] };
over:
  atomic {
    phase[s] = OVER; isConnected[s] = false;
    isEnded[s] = false; isStale[s] = false; robbed[s] = 0;
    if
    :: areAllOver -> forget()
    :: else
    fi
  }
}

/* ---------------------------------------------------------------- a node's heartbeat */

/* Nobody names it: no row, no list, no lease, no statement that is still to be carried out. */
#define isUnnamed(id) (nodeRow[id] == ABSENT && !(lease != NOBODY && leaseId == id) \
  && nodeId[0] != id && nodeId[1] != id && !has(deadIds[0] | deadIds[1], id) \
  && askedId[0] != id && askedId[1] != id && !has(askedDead[0] | askedDead[1], id))

/* Every lease of this node may be another's by now: its sessions end, and it goes on under a new id. */
inline die(n) {
  d_step {
    if :: isOn(0, n) && isLive(0) -> isEnded[0] = true :: else fi;
    if :: isOn(1, n) && isLive(1) -> isEnded[1] = true :: else fi;
    if :: isOn(0, n) && isPending(0) -> isStale[0] = true :: else fi;
    if :: isOn(1, n) && isPending(1) -> isStale[1] = true :: else fi;
    nodeId[n] = NOBODY; deadIds[n] = 0;
    isTrusted[n] = false; isYoung[n] = false; isWritten[n] = false
  }
}

/* A session of this node that was live before the rows were read, and whose row was not among them. */
#define isLost(s) (has(before, s) && isOn(s, n) && isLive(s) && !has(rows, s))
/* A row of this node whose session is neither here nor about to be. */
#define isOrphan(s) (has(rows, s) && !(isOn(s, n) && (isLive(s) || (isPending(s) && !isStale[s]))))

proctype Node(byte n) {
  byte before, rows;
restart:
  {
    do
    :: areAllOver -> goto done
    :: else ->
      /* Not registered: under a new id. */
      if
      :: nodeId[n] != NOBODY
      :: atomic { nodeId[n] == NOBODY && (areAllOver || isUnnamed(0) || isUnnamed(1) || isUnnamed(2)) ->
           if
           :: areAllOver -> goto done
           :: else
           fi;
           d_step {
             nodeId[n] = (isUnnamed(0) -> 0 : (isUnnamed(1) -> 1 : 2));
             nodeRow[nodeId[n]] = LIVING; isTrusted[n] = true;
             assert(exclusive)
           }
         }
         goto listed
      fi;
      /* node-renew: looks at the row … */
      if
      :: d_step { nodeRow[nodeId[n]] == LIVING -> isYoung[n] = true; isLooked[n] = true }
      :: atomic { nodeRow[nodeId[n]] != LIVING ->
           /* … is refused: this node was declared dead. */
           die(n);
           goto next
         }
      fi;
      /* … and commits, when 30 s may be over for everybody who looks meanwhile. */
      if
      :: d_step { nodeRow[nodeId[n]] = LIVING; isLooked[n] = false; isWritten[n] = true }
      :: d_step { lossesLeft > 0 -> lossesLeft--; isYoung[n] = false; isLooked[n] = false }; goto next
      fi;
      if
#ifdef LATE_RENEWAL
      /* BROKEN: what PostgreSQL accepted is good, however late it was accepted. */
      :: d_step { true ->
#else
      :: d_step { isTrusted[n] ->
#endif
           isTrusted[n] = isYoung[n]; isYoung[n] = false; isWritten[n] = false;
           assert(exclusive)
         }
#ifndef LATE_RENEWAL
      /* Accepted, but 25 s were over: somebody may have seen this id dead in between. */
      :: atomic { !isTrusted[n] -> die(n); goto next }
#endif
      :: d_step { lossesLeft > 0 -> lossesLeft--; isYoung[n] = false; isWritten[n] = false }; goto next
      fi;
listed:
      skip;
      /* nodes-dead and node-sessions: a row that a QUIT has deleted and not committed is still seen. */
      d_step {
#ifdef LIST_OF_THE_LIVING
        deadIds[n] = (nodeRow[0] == LIVING) | (nodeRow[1] == LIVING) << 1 |
          (nodeRow[2] == LIVING) << 2;
#else
        deadIds[n] = (nodeRow[0] == DEAD) | (nodeRow[1] == DEAD) << 1 |
          (nodeRow[2] == DEAD) << 2;
#endif
        before = 0;
        if :: isOn(0, n) && isLive(0) -> before = before | bit(0) :: else fi;
        if :: isOn(1, n) && isLive(1) -> before = before | bit(1) :: else fi;
        if :: has(before, 0) && robbed[0] == 1 -> robbed[0] = 2 :: else fi;
        if :: has(before, 1) && robbed[1] == 1 -> robbed[1] = 2 :: else fi;
        rows = (lease != NOBODY && leaseId == nodeId[n] -> bit(lease) : 0);
        /* reconcile, node-sessions-delete. In one step with the look, as those that came in between
           are left alone (`before`), and sessions' ids do not come back. */
        if :: isLost(0) -> isEnded[0] = true :: else fi;
        if :: isLost(1) -> isEnded[1] = true :: else fi;
        assert(!(isOn(0, n) && robbed[0] == 2 && answers(0)));
        assert(!(isOn(1, n) && robbed[1] == 2 && answers(1)));
        if
        :: (isOrphan(0) || isOrphan(1)) && !isLocked && lease != NOBODY && has(rows, lease) -> noLease()
        :: else
        fi;
        before = 0; rows = 0
      };
next: skip
    od
  } unless { isCrashed[n] };
  /* Its supervisor starts another, and has freed the leases if it lives itself. */
  atomic {
    if
    :: nodeId[n] != NOBODY && !(isLocked && leaseId == nodeId[n]) ->
       if :: lease != NOBODY && leaseId == nodeId[n] -> noLease() :: else fi;
       nodeRow[nodeId[n]] = ABSENT
    :: true
    fi;
    d_step {
      before = 0; rows = 0; deadIds[n] = 0; nodeId[n] = NOBODY;
      isTrusted[n] = false; isYoung[n] = false; isLooked[n] = false; isWritten[n] = false;
      isCrashed[n] = false
    };
    goto restart
  };
done: skip
}

/* ---------------------------------------------------------------- time, sweeps, faults */

/* 30 s after the heartbeat that was written last. The renewal that wrote it was sent before, so its
   25 s are over as well by the clock of the node that sent it, if that node lives. */
#define isOverdue(id) (nodeRow[id] == LIVING && !areAllOver && !isHeldBy(0, id) && !isHeldBy(1, id))
#define isHeldBy(n, id) (nodeId[n] == id && (isWritten[n] -> isYoung[n] : isTrusted[n]))

#ifdef ANY_LAPSES
#define mayLapse !areAllOver
#define lapse    skip
#else
#define mayLapse lapsesLeft > 0 && !areAllOver
#define lapse    lapsesLeft--
#endif

proctype Time() {
  do
  :: d_step { mayLapse && isTrusted[0] -> isTrusted[0] = false; lapse }
  :: d_step { mayLapse && isTrusted[1] -> isTrusted[1] = false; lapse }
  :: d_step { mayLapse && isYoung[0] && !isTrusted[0] -> isYoung[0] = false; lapse }
  :: d_step { mayLapse && isYoung[1] && !isTrusted[1] -> isYoung[1] = false; lapse }
  :: d_step { isOverdue(0) -> nodeRow[0] = DEAD }
  :: d_step { isOverdue(1) -> nodeRow[1] = DEAD }
  :: d_step { isOverdue(2) -> nodeRow[2] = DEAD }
  :: areAllOver -> break
  od
}

/* node-leases-delete, node-leases-delete-unknown, nodes-delete */
#define isSwept(id) (nodeRow[id] == DEAD && !(lease != NOBODY && leaseId == id) && !areAllOver \
  && !(isLooked[0] && nodeId[0] == id) && !(isLooked[1] && nodeId[1] == id))

/* A list may still name it, but nothing ever has it again: fewer states. */
inline unlist(id) {
  if
  :: askedId[0] != id && askedId[1] != id ->
     deadIds[0] = deadIds[0] & ~bit(id); deadIds[1] = deadIds[1] & ~bit(id);
     askedDead[0] = askedDead[0] & ~bit(id); askedDead[1] = askedDead[1] & ~bit(id)
  :: else
  fi
}

proctype Sweep() {
  do
  :: d_step { lease != NOBODY && !isLocked && nodeRow[leaseId] != LIVING -> noLease() }
  :: d_step { isSwept(0) -> nodeRow[0] = ABSENT; unlist(0) }
  :: d_step { isSwept(1) -> nodeRow[1] = ABSENT; unlist(1) }
  :: d_step { isSwept(2) -> nodeRow[2] = ABSENT; unlist(2) }
  :: areAllOver -> break
  od
}

#define isUnanswered(s) (isConnected[s] && statement[s] != NOTHING)

inline rob() {
  if :: lease != NOBODY && isAlive[lease] && phase[lease] != OVER -> robbed[lease] = 1 :: else fi;
  noLease()
}

/* A crash of PostgreSQL ends what runs and every connection, and empties sessions. */
inline breakOff(s) {
  if :: statement[s] == RUNNING -> statement[s] = NOTHING; isConnected[s] = false
     :: statement[s] == QUIT || statement[s] == ACQUIRE -> statement[s] = NOTHING; isConnected[s] = false
     :: statement[s] != NOTHING && statement[s] != RUNNING && statement[s] != QUIT && statement[s] != ACQUIRE -> isConnected[s] = false
     :: else
  fi
}

inline crash(n) {
  isCrashed[n] = true; isTrusted[n] = false; isYoung[n] = false; isWritten[n] = false;
  if :: isOn(0, n) -> isAlive[0] = false :: else fi;
  if :: isOn(1, n) -> isAlive[1] = false :: else fi
}

proctype Faults() {
  do
  :: d_step { lossesLeft > 0 && isUnanswered(0) -> lossesLeft--; isConnected[0] = false }
  :: d_step { lossesLeft > 0 && isUnanswered(1) -> lossesLeft--; isConnected[1] = false }
  :: d_step { crashesLeft > 0 && !isCrashed[0] -> crashesLeft--; crash(0) }
  :: d_step { crashesLeft > 0 && !isCrashed[1] -> crashesLeft--; crash(1) }
  :: d_step { emptiedLeft > 0 -> emptiedLeft--; rob(); isLocked = false; breakOff(0); breakOff(1) }
  :: d_step { kicksLeft > 0 && lease != NOBODY && !isLocked -> kicksLeft--; rob() }
  :: areAllOver -> break
  od
}

init {
  atomic {
    run Node(0); run Node(1);
#ifndef SAME_NODE
    home[1] = 1;
#endif
    run Session(0); run Session(1);
    run Backend(0); run Backend(1);
    run Time(); run Sweep(); run Faults()
  }
}
