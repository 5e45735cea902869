import LongspanKernels

extension BenchmarkCase {
  /// Realistic shapes of every public kernel.
  ///
  /// Attention has the heads of Llama-3-8B (32 and 8 of 128) and of SmolLM2-135M (9 and 3 of 64); the layers have the
  /// widths of the former. Operands that fit the caches come both warm and cold.
  public static let standard: [BenchmarkCase] = attention + sparse + caches + layers + stateSpaces + weights

  private static let attention: [BenchmarkCase] = {
    var cases: [BenchmarkCase] = []
    let large = ["Hq": 32, "Hk": 8, "D": 128]
    let small = ["Hq": 9, "Hk": 3, "D": 64]
    for keys in [4096, 32768, 131_072] {
      for type in ElementType.allCases {
        cases += bothStates(.attentionDecode, large.merging(["S": keys, "T": 1, "window": 0]) { $1 }, type)
      }
    }
    for type in ElementType.allCases {
      cases += bothStates(.attentionDecode, small.merging(["S": 8192, "T": 1, "window": 0]) { $1 }, type)
    }
    for type in [ElementType.f32, .bf16] {
      for (heads, tokens, window) in [
        (large, 1024, 0), (large, 4096, 0), (large, 4096, 1024), (large, 8192, 0), (small, 4096, 0),
      ] {
        cases.append(
          BenchmarkCase(.attentionPrefill, heads.merging(["N": tokens, "window": window]) { $1 }, type))
      }
    }
    cases += bothStates(.attentionMerge, ["P": 8, "R": 512, "D": 128])
    return cases
  }()

  /// 2,048 tokens and 8,192 tokens in blocks out of 131,072; and a quarter of a prompt.
  private static let sparse: [BenchmarkCase] = {
    var cases: [BenchmarkCase] = []
    let heads = ["Hq": 32, "Hk": 8, "D": 128]
    for type in ElementType.allCases {
      for (chosen, block) in [(2048, 1), (8192, 64)] {
        let shape = ["S": 131_072, "T": 1, "K": chosen, "block": block]
        cases.append(BenchmarkCase(.sparseDecode, heads.merging(shape) { $1 }, type, cache: .cold))
      }
    }
    for type in [ElementType.f32, .bf16] {
      cases.append(
        BenchmarkCase(.sparsePrefill, heads.merging(["N": 4096, "K": 1024, "block": 64]) { $1 }, type))
      for (lag, keep) in [(128, 32), (1024, 256)] {
        let shape = ["N": 8192, "sink": 16, "W": lag, "K": keep]
        cases.append(BenchmarkCase(.lagPrefill, heads.merging(shape) { $1 }, type))
      }
    }
    return cases
  }()

  private static let caches: [BenchmarkCase] = {
    var cases: [BenchmarkCase] = []
    let heads = ["H": 8, "D": 128]
    for type in ElementType.allCases {
      for lag in [128, 1024] {
        let window = heads.merging(["W": lag, "P": 1]) { $1 }
        cases.append(BenchmarkCase(.lagScores, window, type, cache: .cold))
        cases.append(
          BenchmarkCase(.lagCompression, window.merging(["K": lag / 4]) { $1 }, type, cache: .cold))
      }
      cases.append(
        BenchmarkCase(.compact, heads.merging(["N": 8192, "K": 2048]) { $1 }, type, cache: .cold))
      cases.append(BenchmarkCase(.ropeShift, heads.merging(["T": 1024]) { $1 }, type, cache: .cold))
    }
    cases += bothStates(.select, ["R": 64, "N": 1024, "K": 256])
    return cases
  }()

  /// The layers around the scans, with the widths of Mamba-1.4B and Mamba-2.8B.
  private static let stateSpaces: [BenchmarkCase] = {
    var cases: [BenchmarkCase] = []
    for type in [ElementType.f32, .bf16] {
      for channels in [2048, 5120] {
        cases.append(
          BenchmarkCase(.causalConv, ["L": 2048, "E": channels, "W": 4], type, cache: .cold))
      }
      cases += bothStates(.causalConv, ["L": 1, "E": 5120, "W": 4], type)
      cases += bothStates(.gatedRMSNorm, ["R": 512, "C": 4096, "G": 1], type)
      cases += bothStates(.dtSteps, ["L": 2048, "E": 2048], type)
      for channels in [2048, 5120] {
        for tokens in type == .f32 ? [2048, 16384] : [2048] {
          cases.append(
            BenchmarkCase(.selectiveScan, ["L": tokens, "E": channels, "N": 16], type, cache: .cold))
        }
        for sequences in [1, 16] {
          cases += bothStates(.selectiveUpdate, ["B": sequences, "E": channels, "N": 16], type)
        }
      }
      let heads = ["H": 64, "P": 64, "N": 128, "G": 1]
      for keep in [0, 100, 10] {
        cases.append(
          BenchmarkCase(.ssdScan, heads.merging(["L": 4096, "keep": keep]) { $1 }, type, cache: .cold))
      }
      for sequences in [1, 16] {
        cases += bothStates(.ssdUpdate, heads.merging(["B": sequences]) { $1 }, type)
      }
    }
    return cases
  }()

  private static let layers: [BenchmarkCase] = {
    var cases: [BenchmarkCase] = []
    for type in [ElementType.f32, .bf16] {
      cases += bothStates(.rope, ["T": 512, "H": 32, "D": 128], type)
      cases += bothStates(.convert, ["T": 512, "H": 8, "D": 128], type)
      cases += bothStates(.rmsNorm, ["R": 512, "C": 4096], type)
      cases += bothStates(.layerNorm, ["R": 512, "C": 4096], type)
      for activation in Activation.allCases {
        cases += bothStates(.gate(activation), ["R": 128, "C": 14336], type)
      }
      cases += bothStates(.logSoftmaxGather, ["R": 32, "V": 128_256], type)
      cases.append(BenchmarkCase(.embedding, ["T": 512, "V": 32768, "C": 4096], type, cache: .cold))
    }
    return cases
  }()

  private static let weights: [BenchmarkCase] = {
    var cases: [BenchmarkCase] = []
    for type in WeightType.allCases {
      cases += bothStates(.dequantize(type), ["M": 1024, "K": 4096])
    }
    for type in [WeightType.f32, .q8_0, .q4_K] {
      cases.append(BenchmarkCase(.linear(type), ["R": 1, "M": 4096, "K": 4096], cache: .cold))
      cases.append(BenchmarkCase(.linear(type), ["R": 512, "M": 4096, "K": 4096]))
    }
    for type in WeightType.allCases where PackedWeights.canPack(type) {
      let rows = type == .q4_1 || type == .f16 ? [1] : [1, 8]
      for rows in rows {
        cases.append(
          BenchmarkCase(.product(type), ["R": rows, "M": 4096, "K": 4096], cache: .cold))
      }
    }
    return cases
  }()

  /// Products with packed weights and through OpenBLAS by the number of rows, of which ``standard`` has some.
  public static let products: [BenchmarkCase] = {
    var cases: [BenchmarkCase] = []
    for type in WeightType.allCases where PackedWeights.canPack(type) {
      for kernel in [BenchmarkKernel.product(type), .linear(type)] {
        for rows in [1, 2, 4, 8, 16, 64, 512] {
          cases.append(BenchmarkCase(kernel, ["R": rows, "M": 4096, "K": 4096], cache: .cold))
        }
      }
    }
    return cases
  }()

  /// Operands that turn out larger than the caches are cold in either.
  private static func bothStates(
    _ kernel: BenchmarkKernel, _ shape: [String: Int], _ type: ElementType = .f32
  ) -> [BenchmarkCase] {
    CacheState.allCases.reversed().map { BenchmarkCase(kernel, shape, type, cache: $0) }
  }

  /// The cases that a person asked for, out of a table.
  ///
  /// - Parameters:
  ///   - table: to choose from; by default ``standard``, and with a filter ``products`` before it.
  ///   - filter: parts of names, separated by commas.
  ///   - shape: dimensions to replace; cases whose kernels do not have all of them are left out.
  ///   - elementType: to replace; kernels that do not take it are left out.
  ///   - cache: the cache state to keep.
  /// - Throws: ``/LongspanKernels/LongspanError`` naming what exists, if nothing is left.
  public static func select(
    from table: [BenchmarkCase]? = nil, filter: String? = nil, shape: [String: Int] = [:],
    elementType: ElementType? = nil, cache: CacheState? = nil
  ) throws(LongspanError) -> [BenchmarkCase] {
    let table = unique(table ?? (filter == nil ? standard : products + standard))
    let parts = filter?.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    var cases = table.filter { one in parts?.contains(where: one.name.contains) ?? true }
    guard !cases.isEmpty else {
      let names = unique(table.map(\.name)).joined(separator: ", ")
      throw LongspanError(.invalidArgument, "no kernel's name contains '\(filter ?? "")'; there are \(names)")
    }
    let keys = unique(cases.flatMap { $0.kernel.dimensions.map(\.key) })
    for key in shape.keys.sorted() where !keys.contains(key) {
      throw LongspanError(
        .invalidArgument,
        "no kernel chosen has the dimension '\(key)'; there are \(keys.joined(separator: ", "))")
    }
    cases.removeAll { !Set(shape.keys).isSubset(of: $0.kernel.dimensions.map(\.key)) }
    guard !cases.isEmpty else {
      throw LongspanError(
        .invalidArgument, "no kernel has all of the dimensions \(shape.keys.sorted().joined(separator: ", "))"
      )
    }
    if let elementType {
      cases.removeAll { !$0.kernel.elementTypes.contains(elementType) }
      guard !cases.isEmpty else {
        throw LongspanError(.invalidArgument, "no kernel chosen takes \(elementType.rawValue)")
      }
    }
    cases = unique(
      cases.map {
        BenchmarkCase(
          $0.kernel, $0.shape.merging(shape) { $1 }, elementType ?? $0.elementType, cache: $0.cache)
      }
    ).filter { cache == nil || $0.cache == cache }
    guard !cases.isEmpty else {
      throw LongspanError(.invalidArgument, "no case chosen is \(cache?.rawValue ?? "")")
    }
    // replaced dimensions may not go with the others of every case, but must with those of one
    let valid = cases.filter { (try? $0.validate()) != nil }
    if valid.isEmpty { try cases[0].validate() }
    return valid
  }

  private static func unique<T: Hashable>(_ values: [T]) -> [T] {
    var seen: Set<T> = []
    return values.filter { seen.insert($0).inserted }
  }
}
