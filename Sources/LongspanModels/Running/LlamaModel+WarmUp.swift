import Longspan
import LongspanKernels

extension LlamaModel {
  /// Reads one token into a cache of its own, so that the model file's pages are in memory before something is timed.
  func warmUp(cacheType: ElementType) throws(LongspanError) {
    var cache = try makeCache(elementType: cacheType, capacity: 1)
    var workspace = Workspace()
    _ = try prefill([0], into: &cache, workspace: &workspace)
  }
}

extension Duration {
  /// The duration in seconds.
  var seconds: Double {
    let (whole, attoseconds) = components
    return Double(whole) + Double(attoseconds) * 1e-18
  }
}
