/* Part of Steve's Valgrind tool, a program of its own.
 * SPDX-License-Identifier: GPL-2.0-or-later; see COPYING.
 *
 * Instrumentation. A call for every access would cost more than the access; so a superblock only
 * stores the addresses it touches one after the other in a buffer, and the buffer is looked through
 * when it is nearly full, when a thread ends its turn, and before anything else is recorded. What is
 * known to be the stack's, because it is the stack pointer and a constant, is not stored. */
#include "pub_tool_libcassert.h"
#include "pub_tool_machine.h"

#include "steve_tool.h"

enum {
    NOTES = 8192,
    NOTES_MARGIN = 4096, /* more than one superblock can store */
    SIZE_SHIFT = 48,
    SIZE_MASK = 0x3fff,
    NOTE_READS = 62,
    NOTE_WRITES = 63,
    SP_DERIVED_MAX = 4096,
};
#define ADDRESS_MASK (((ULong)1 << SIZE_SHIFT) - 1)

static ULong notes[NOTES];
static ULong *next_note = notes;
static ULong *nearly_full = notes + NOTES - NOTES_MARGIN;

void steve_instrument_init(void) {
    next_note = notes;
}

void steve_drain(void) {
    const ULong *end = next_note;
    const ULong *at;
    for (at = notes; at < end; at++) {
        ULong note = *at;
        if (note != 0)
            steve_access((Addr)(note & ADDRESS_MASK), (UInt)(note >> SIZE_SHIFT & SIZE_MASK),
                         (Bool)(note >> NOTE_READS & 1), (Bool)(note >> NOTE_WRITES & 1));
    }
    next_note = notes;
}

static VG_REGPARM(0) void drain_helper(void) {
    steve_drain();
}

/* --- One superblock under way. */

typedef struct {
    IRSB *out;
    IRTemp cursor; /* next_note when the superblock began */
    Int stored;    /* notes since then */
    Int published; /* of those, next_note knows */
    Bool *from_sp; /* by temporary: the stack pointer and a constant */
    Int sp_offset;
} Work;

static void add(Work *work, IRStmt *statement) {
    addStmtToIRSB(work->out, statement);
}

static IRExpr *assign(Work *work, IRType type, IRExpr *expression) {
    IRTemp temporary = newIRTemp(work->out->tyenv, type);
    add(work, IRStmt_WrTmp(temporary, expression));
    return IRExpr_RdTmp(temporary);
}

static IRExpr *word(ULong value) {
    return IRExpr_Const(IRConst_U64(value));
}

static IRExpr *address_of(const void *variable) {
    return word((ULong)(Addr)variable);
}

/* Lets next_note know what was stored, before the superblock can be left. */
static void publish(Work *work) {
    if (work->stored == work->published)
        return;
    work->published = work->stored;
    IRExpr *next = assign(work, Ity_I64,
                          IRExpr_Binop(Iop_Add64, IRExpr_RdTmp(work->cursor),
                                       word((ULong)work->stored * sizeof notes[0])));
    add(work, IRStmt_Store(Iend_LE, address_of(&next_note), next));
}

/* Notes an access; `guard` NULL = it is always made. */
static void note(Work *work, IRExpr *address, Int size, Bool reads, Bool writes, IRExpr *guard) {
    ULong bits = (ULong)(size & SIZE_MASK) << SIZE_SHIFT | (ULong)reads << NOTE_READS |
                 (ULong)writes << NOTE_WRITES;
    if (address->tag != Iex_RdTmp || work->from_sp[address->Iex.RdTmp.tmp] ||
        work->stored >= NOTES_MARGIN - 1)
        return;
    IRExpr *value = assign(work, Ity_I64, IRExpr_Binop(Iop_Or64, address, word(bits)));
    if (guard != NULL)
        value = assign(work, Ity_I64, IRExpr_ITE(guard, value, word(0)));
    IRExpr *place = assign(work, Ity_I64,
                           IRExpr_Binop(Iop_Add64, IRExpr_RdTmp(work->cursor),
                                        word((ULong)work->stored * sizeof notes[0])));
    add(work, IRStmt_Store(Iend_LE, place, value));
    work->stored++;
}

static Bool is_from_sp(const Work *work, const IRExpr *expression) {
    return expression->tag == Iex_RdTmp && work->from_sp[expression->Iex.RdTmp.tmp];
}

static void look_at_assignment(Work *work, const IRStmt *statement) {
    IRTemp temporary = statement->Ist.WrTmp.tmp;
    IRExpr *data = statement->Ist.WrTmp.data;
    Bool from_sp = False;
    if (data->tag == Iex_Get)
        from_sp = data->Iex.Get.offset == work->sp_offset && data->Iex.Get.ty == Ity_I64;
    else if (data->tag == Iex_RdTmp)
        from_sp = is_from_sp(work, data);
    else if (data->tag == Iex_Binop &&
             (data->Iex.Binop.op == Iop_Add64 || data->Iex.Binop.op == Iop_Sub64))
        from_sp = is_from_sp(work, data->Iex.Binop.arg1) && data->Iex.Binop.arg2->tag == Iex_Const;
    work->from_sp[temporary] = from_sp;
    if (data->tag == Iex_Load)
        note(work, data->Iex.Load.addr, sizeofIRType(data->Iex.Load.ty), True, False, NULL);
}

static void look_at_dirty(Work *work, const IRDirty *details) {
    if (details->mFx == Ifx_None)
        return;
    note(work, details->mAddr, details->mSize, details->mFx != Ifx_Write, details->mFx != Ifx_Read,
         details->guard->tag == Iex_RdTmp ? details->guard : NULL);
}

static void look_at_cas(Work *work, const IRCAS *details) {
    Int size = sizeofIRType(typeOfIRExpr(work->out->tyenv, details->dataLo));
    if (details->dataHi != NULL)
        size *= 2;
    note(work, details->addr, size, True, True, NULL);
}

static void look_at_guarded(Work *work, const IRStmt *statement) {
    if (statement->tag == Ist_StoreG) {
        const IRStoreG *store = statement->Ist.StoreG.details;
        note(work, store->addr, sizeofIRType(typeOfIRExpr(work->out->tyenv, store->data)), False,
             True, store->guard);
        return;
    }
    const IRLoadG *load = statement->Ist.LoadG.details;
    IRType type, widened;
    typeOfIRLoadGOp(load->cvt, &widened, &type);
    note(work, load->addr, sizeofIRType(type), True, False, load->guard);
}

static void look_at(Work *work, const IRStmt *statement) {
    switch (statement->tag) {
    case Ist_WrTmp:
        look_at_assignment(work, statement);
        break;
    case Ist_Store:
        note(work, statement->Ist.Store.addr,
             sizeofIRType(typeOfIRExpr(work->out->tyenv, statement->Ist.Store.data)), False, True,
             NULL);
        break;
    case Ist_StoreG:
    case Ist_LoadG:
        look_at_guarded(work, statement);
        break;
    case Ist_CAS:
        look_at_cas(work, statement->Ist.CAS.details);
        break;
    case Ist_Dirty:
        look_at_dirty(work, statement->Ist.Dirty.details);
        break;
    case Ist_Exit:
        publish(work);
        break;
    default:
        break;
    }
}

/* At the start: when the buffer has not enough room for a superblock, it is emptied. */
static void begin(Work *work) {
    IRExpr *next = assign(work, Ity_I64, IRExpr_Load(Iend_LE, Ity_I64, address_of(&next_note)));
    IRExpr *full = assign(work, Ity_I1, IRExpr_Binop(Iop_CmpLT64U, address_of(nearly_full), next));
    IRDirty *call =
        unsafeIRDirty_0_N(0, "steve_drain", VG_(fnptr_to_fnentry)(drain_helper), mkIRExprVec_0());
    call->guard = full;
    add(work, IRStmt_Dirty(call));
    work->cursor = newIRTemp(work->out->tyenv, Ity_I64);
    add(work, IRStmt_WrTmp(work->cursor, IRExpr_Load(Iend_LE, Ity_I64, address_of(&next_note))));
}

static Bool touches_memory(const IRSB *block) {
    Int i;
    for (i = 0; i < block->stmts_used; i++) {
        const IRStmt *statement = block->stmts[i];
        if (statement->tag == Ist_Store || statement->tag == Ist_StoreG ||
            statement->tag == Ist_LoadG || statement->tag == Ist_CAS ||
            statement->tag == Ist_Dirty ||
            (statement->tag == Ist_WrTmp && statement->Ist.WrTmp.data->tag == Iex_Load))
            return True;
    }
    return False;
}

IRSB *steve_instrument(VgCallbackClosure *closure, IRSB *block, const VexGuestLayout *layout,
                       const VexGuestExtents *extents, const VexArchInfo *host, IRType guest_word,
                       IRType host_word) {
    static Bool from_sp[SP_DERIVED_MAX * 4];
    Work work = {.sp_offset = layout->offset_SP, .from_sp = from_sp};
    Int i;
    (void)closure, (void)extents, (void)host;
    tl_assert(guest_word == Ity_I64 && host_word == Ity_I64);
    if (!touches_memory(block) || block->tyenv->types_used > SP_DERIVED_MAX * 4)
        return block;
    for (i = 0; i < block->tyenv->types_used; i++)
        from_sp[i] = False;
    work.out = deepCopyIRSBExceptStmts(block);
    /* What stands before the first instruction is the core's own. */
    for (i = 0; i < block->stmts_used && block->stmts[i]->tag != Ist_IMark; i++)
        add(&work, block->stmts[i]);
    begin(&work);
    for (; i < block->stmts_used; i++) {
        IRStmt *statement = block->stmts[i];
        if (statement->tag == Ist_NoOp)
            continue;
        /* An access is noted before it is made: its address may be in the register it loads. */
        look_at(&work, statement);
        add(&work, statement);
    }
    publish(&work);
    return work.out;
}
