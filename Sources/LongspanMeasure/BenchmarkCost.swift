import LongspanKernels

/// What a call must do at least, whatever its implementation.
public struct BenchmarkCost: Sendable, Equatable {
  /// Bytes that must move: each input once, each output once.
  public let bytes: Int
  /// Additions and multiplications of the mathematics; an exponential, tanh, erf or division counts one.
  public let flops: Int
  /// Exponentials (or a tanh or erf, which are made of one).
  public let exponentials: Int
  /// Output elements; in attention and dequantization the elements of K and V, or of the weights.
  public let elements: Int

  /// Counts a call.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` if a count does not fit in 53 bits.
  init(_ kernel: BenchmarkKernel, _ shape: [String: Int], _ type: ElementType) throws(LongspanError) {
    // doubles count exactly up to 2^53, and beyond that show that they overflowed
    func d(_ key: String) -> Double { Double(shape[key] ?? 0) }
    let e = Double(type.byteCount)
    var bytes = 0.0
    var flops = 0.0
    var exponentials = 0.0
    var elements = 0.0
    switch kernel {
    case .attentionDecode:
      let window = d("window") > 0 ? min(d("S"), d("window")) : d("S")
      let seen = min(d("S"), window + d("T") - 1)
      // the queries that see 1, 2, ... S keys, without those whose places come before the T queries
      let pairs = Self.pairs(d("S"), window) - Self.pairs(max(0, d("S") - d("T")), window)
      elements = 2 * seen * d("Hk") * d("D")
      bytes = elements * e + d("T") * d("Hq") * d("D") * (e + 4)
      flops = 4 * d("Hq") * d("D") * pairs
      exponentials = d("Hq") * pairs
    case .attentionPrefill:
      let n = d("N")
      let window = d("window") > 0 ? min(n, d("window")) : n
      let pairs = n * window - window * window / 2
      elements = 2 * n * d("Hk") * d("D")
      bytes = elements * e + n * d("Hq") * d("D") * (e + 4)
      flops = 4 * d("Hq") * d("D") * pairs
      exponentials = d("Hq") * pairs
    case .attentionMerge:
      let rows = d("P") * d("R")
      bytes = 4 * (rows + d("R")) * (d("D") + 1)
      flops = 2 * rows * d("D")
      exponentials = rows
      elements = d("R") * d("D")
    case .sparseDecode, .sparsePrefill:
      let tokens = kernel == .sparseDecode ? d("T") : d("N")
      let lists = kernel == .sparseDecode ? 1 : (tokens / Double(BenchmarkLists.queryTokens)).rounded(.up)
      // each list reads its keys
      elements = 2 * lists * d("K") * d("Hk") * d("D")
      bytes =
        elements * e + tokens * d("Hq") * d("D") * (e + 4)
        + 4 * lists * d("Hk") * (d("K") / max(1, d("block")))
      flops = 4 * d("Hq") * d("D") * tokens * d("K")
      exponentials = d("Hq") * tokens * d("K")
    case .lagPrefill:
      let n = d("N")
      let keep = d("K")
      let pairs =
        n < 0x1p40
        ? BenchmarkLists.lagPairs(
          tokens: Int(n), sink: shape["sink"] ?? 0, lag: max(1, shape["W"] ?? 1), keep: Int(keep)) : .infinity
      let windows = max(0, ((n - 1 - d("sink")) / max(1, d("W"))).rounded(.down) - 1)
      elements = 2 * n * d("Hk") * d("D")
      bytes = elements * e + n * d("Hq") * d("D") * (e + 4) + 4 * windows * keep * d("Hk")
      flops = 4 * d("Hq") * d("D") * pairs
      exponentials = d("Hq") * pairs
    case .lagScores, .lagCompression:
      let scored = d("H") * d("P") * d("W")
      let read = 2 * d("H") * (d("P") + 1) * d("W") * d("D")
      elements = read
      flops = scored * (2 * (6 * d("D") + 4) + 2)
      exponentials = 2 * scored
      // a compression writes what it keeps and the window behind
      let written = 2 * d("H") * (d("P") * d("K") + d("W")) * d("D")
      bytes = read * e + (kernel == .lagScores ? 4 * scored : written * e)
    case .select:
      elements = d("R") * d("N")
      bytes = 4 * elements + 4 * d("R") * d("K") + 8 * (d("R") + 1)
    case .compact:
      elements = 2 * d("H") * d("K") * d("D")
      let moved = shape["K"].map { BenchmarkLists.moved(count: $0, of: shape["N"] ?? 0) } ?? 0
      bytes = 4 * d("H") * Double(moved) * d("D") * e
    case .ropeShift:
      let pairs = (d("D") / 2).rounded(.down)
      elements = d("T") * d("H") * d("D")
      bytes = 4 * d("T") * d("H") * pairs * e + 4 * d("T") + 8 * d("T") * pairs
      flops = 6 * d("T") * d("H") * pairs
    case .rope:
      elements = d("T") * d("H") * d("D")
      bytes = 2 * elements * e + 4 * d("T") * 2 * (d("D") / 2).rounded(.down)
      flops = 6 * d("T") * d("H") * (d("D") / 2).rounded(.down)
    case .convert:
      elements = d("T") * d("H") * d("D")
      bytes = elements * (4 + e)
    case .rmsNorm:
      elements = d("R") * d("C")
      bytes = elements * (e + 4) + 4 * d("C")
      flops = 4 * elements
    case .layerNorm:
      elements = d("R") * d("C")
      bytes = elements * (e + 4) + 8 * d("C")
      flops = 7 * elements
    case .gate(let activation):
      elements = d("R") * d("C")
      bytes = elements * (2 * e + 4)
      flops = elements * (activation == .silu ? 4 : activation == .geluTanh ? 9 : 6)
      exponentials = elements
    case .logSoftmaxGather:
      elements = d("R") * d("V")
      bytes = elements * e + 12 * d("R")
      flops = 5 * elements
      exponentials = elements
    case .embedding:
      elements = d("T") * d("C")
      bytes = elements * (e + 4) + 4 * d("T")
    case .dequantize(let weights):
      elements = d("M") * d("K")
      bytes = elements * (Self.bytesPerElement(weights) + 4)
      flops = weights.blockElements > 1 ? 2 * elements : 0
    case .causalConv:
      elements = d("L") * d("E")
      bytes = elements * (e + 4) + 4 * d("E") * (d("W") + 1) + 8 * d("E") * (d("W") - 1)
      flops = elements * (2 * d("W") + 4)
      exponentials = elements
    case .gatedRMSNorm:
      elements = d("R") * d("C")
      bytes = elements * (2 * e + 4) + 4 * d("C")
      flops = 8 * elements
      exponentials = elements
    case .dtSteps:
      elements = d("L") * d("E")
      bytes = elements * (e + 4) + 4 * d("E")
      flops = 4 * elements
      exponentials = 2 * elements
    case .selectiveScan, .selectiveUpdate:
      // the scan is of one sequence, an update of one token each
      let rows = kernel == .selectiveScan ? d("L") : d("B")
      let states = d("E") * d("N")
      elements = rows * d("E")
      bytes = elements * (3 * e + 4) + 2 * rows * d("N") * e + 4 * states + 8 * d("E")
      bytes += 8 * states * (kernel == .selectiveScan ? 1 : d("B"))
      flops = elements * (7 * d("N") + 11)
      exponentials = elements * (d("N") + 3)
    case .ssdScan, .ssdUpdate:
      // the scan is of one sequence, an update of one token each
      let rows = kernel == .ssdScan ? d("L") : d("B")
      let states = d("H") * d("P") * d("N")
      elements = rows * d("H") * d("P")
      bytes = elements * (e + 4) + rows * (d("H") + 2 * d("G") * d("N")) * e
      bytes += 4 * d("H") * (d("keep") > 0 ? 4 : 3) + 8 * states * (kernel == .ssdScan ? 1 : d("B"))
      flops = rows * d("H") * (d("keep") > 0 ? 5 : 4) + 2 * elements
      flops +=
        kernel == .ssdScan
        ? 64 * elements + 4 * rows * states + 64 * rows * d("G") * d("N") : 5 * rows * states
      exponentials = 3 * rows * d("H")
    case .linear(let weights), .product(let weights):
      elements = d("R") * d("M")
      bytes = d("M") * d("K") * Self.bytesPerElement(weights) + 4 * d("R") * (d("M") + d("K"))
      flops = 2 * d("R") * d("M") * d("K")
    }
    guard max(bytes, flops, exponentials, elements) < 0x1p53 else {
      throw LongspanError(.overflow, "\(kernel.name): the shape is too large to count")
    }
    self.bytes = Int(bytes)
    self.flops = Int(flops)
    self.exponentials = Int(exponentials)
    self.elements = Int(elements)
  }

  /// Pairs of a query and a key of which the queries at the first `count` places see as many as stand before them and
  /// their own, but no more than `window`.
  private static func pairs(_ count: Double, _ window: Double) -> Double {
    let short = min(count, window)
    return short * (short + 1) / 2 + (count - short) * window
  }

  private static func bytesPerElement(_ type: WeightType) -> Double {
    Double(type.blockBytes) / Double(type.blockElements)
  }
}
