import Longspan
import LongspanKernels
import Testing

@Suite struct KVPolicyOptionTests {
  @Test func readsPolicies() throws {
    #expect(try KVPolicyOption.policy("dense") is DensePolicy)
    let standard = try #require(try KVPolicyOption.policy("lagkv") as? LagRelativeCompression)
    #expect(standard == (try LagRelativeCompression()))
    let policy = try #require(
      try KVPolicyOption.policy(
        "lagkv:sink=4,lag=128,ratio=0.25,positions=renumbered,weight=0.5,skip=0+7,mode=compressFirst")
        as? LagRelativeCompression)
    #expect(policy.sink == 4 && policy.lag == 128 && policy.ratio == 0.25 && policy.keep == 32)
    #expect(policy.positions == .renumbered && policy.valueWeight == 0.5 && policy.skippedLayers == [0, 7])
    #expect(policy.mode == .compressFirst && policy.prefill == .chunked)
    // a description is a policy that reads the same
    #expect(try KVPolicyOption.policy(policy.description) as? LagRelativeCompression == policy)
  }

  @Test(arguments: [
    ("snapkv", "dense, lagkv"), ("", "dense, lagkv"), ("dense:x=1", "no parameters"),
    ("lagkv:window=3", "sink, lag, ratio"), ("lagkv:lag", "key=value"), ("lagkv:", "key=value"),
    ("lagkv:lag=1,lag=2", "twice"), ("lagkv:lag=x", "a whole number"), ("lagkv:ratio=0", "ratio 0"),
    ("lagkv:ratio=1.5", "ratio 1.5"), ("lagkv:ratio=nan", "ratio nan"), ("lagkv:lag=0", "lag 0"),
    ("lagkv:sink=-1", "sink -1"), ("lagkv:lag=2,ratio=0.3", "keeps no token"), ("lagkv:weight=-1", "weight"),
    ("lagkv:positions=relative", "absolute or renumbered"), ("lagkv:skip=a", "0+1"),
    ("lagkv:mode=later", "useThenCompress or compressFirst"),
    ("lagkv:mode=compressFirst,prefill=oneShot", "chunked"),
  ])
  func refusesByName(text: String, part: String) {
    let error = #expect(throws: LongspanError.self) { _ = try KVPolicyOption.policy(text) }
    #expect(error?.message.contains(part) == true, "\(error?.message ?? "")")
    #expect(error?.message.contains("\n") == false)
  }

  @Test func layersToSkipMustExist() throws {
    let policy = try LagRelativeCompression(skippedLayers: [2])
    let shape = try KVShape(layers: 2, heads: 1, headDimension: 8)
    #expect(throws: LongspanError.self) { _ = try KVCache(shape, policy: policy) }
  }
}
