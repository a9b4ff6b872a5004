/* What kernel_program.py assembles, to be read by people and compared by a test; nothing loads this in service.
 *
 * Asked for each buffer that a promoted socket receives: hand it on to the peer while there is credit and
 * nothing that came earlier waits for the worker, else leave it to the worker. */

#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define MESSAGE_COST_BYTES 512

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static __u64 (*const bpf_get_socket_cookie)(void *context) = (void *)BPF_FUNC_get_socket_cookie;
static long (*const bpf_sk_redirect_map)(void *skb, void *map, __u32 key, __u64 flags) =
	(void *)BPF_FUNC_sk_redirect_map;
static long (*const bpf_ringbuf_output)(void *ring, void *data, __u64 size, __u64 flags) =
	(void *)BPF_FUNC_ringbuf_output;

/* The maps are made by the worker (kernel_maps.py); here are only names to refer to them by. */
struct map { __u32 unused; };
struct map slots SEC("maps");	/* hash: cookie of a socket to its slot */
struct map flows SEC("maps");	/* array: slot to struct flow */
struct map sockets SEC("maps");	/* sockmap: slot to socket; that of the peer differs in the last bit */
struct map notices SEC("maps");	/* ring buffer of slots for the worker to see to */

struct flow {
	/* written by the worker */
	__u64 limit;		/* hand on while no more than this is charged */
	__u64 notice_at;	/* tell the worker when more than this is charged */
	__u64 consumed;		/* bytes that it has read */
	/* written here, under the lock of the socket */
	__u64 charged;
	__u64 redirected;
	__u64 passed;
	__u64 unused[2];
};

SEC("sk_skb/stream_verdict")
int verdict(struct __sk_buff *skb)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	__u32 *found = bpf_map_lookup_elem(&slots, &cookie);
	if (!found)
		return SK_PASS;
	__u32 slot = *found;
	struct flow *flow = bpf_map_lookup_elem(&flows, &slot);
	if (!flow)
		return SK_PASS;
	/* An end of the stream comes as a buffer without bytes; handed on, it would break the peer. */
	if (!skb->len)
		return SK_DROP;

	__u64 before = flow->charged, after = before + skb->len + MESSAGE_COST_BYTES;
	flow->charged = after;
	/* Tell the worker once, by the buffer that crosses the line. */
	if (before <= flow->notice_at && after > flow->notice_at)
		bpf_ringbuf_output(&notices, &slot, sizeof(slot), BPF_RB_FORCE_WAKEUP);

	/* What follows bytes that the worker has not read must not overtake them. */
	if (after > flow->limit || flow->passed != flow->consumed) {
		flow->passed += skb->len;
		return SK_PASS;
	}
	flow->redirected += skb->len;
	return bpf_sk_redirect_map(skb, &sockets, slot ^ 1, 0);
}

char _license[] SEC("license") = "GPL";
